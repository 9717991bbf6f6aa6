import sys,cProfile,pstats,threading,signal
from overread.receive.upper_layer.reading import _Cutting
orig=_Cutting.run
def run(self):
    p=cProfile.Profile(); 
    try: p.runcall(orig,self)
    finally:
        pstats.Stats(p).sort_stats('tottime').print_stats(45)
        sys.stdout.flush()
_Cutting.run=run
from overread.cli import main
sys.exit(main(["--config","/tmp/run1/overread.toml","run","--role","listen"]))
