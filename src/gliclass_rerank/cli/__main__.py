"""`python -m gliclass_rerank.cli`: the command line without the installed script."""

from gliclass_rerank.cli.main import main

main()
