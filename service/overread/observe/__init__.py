"""Events become something people can see: metrics, log lines, and answers to "are you alive?"."""
