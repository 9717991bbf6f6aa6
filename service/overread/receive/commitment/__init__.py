"""Storage Commitment Push Model SCP (PS3.4 Annex J): who asks is told what would survive a power cut, and nothing else.

    modality ──N-ACTION──▶ request: validated ─▶ docket: a file in the spool, synced ─▶ 0x0000
                                                    │
       clerk's process     judge: ledger and bytes compared, the promise written down ─▶ docket
                                                    │
    modality ◀─N-EVENT-REPORT── reporter: on the same association when it is open and quiet, else on a new one

A case is one file from the request to the end, so that nothing but the open association is lost with a process.
"""
