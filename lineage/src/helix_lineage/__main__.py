"""`python -m helix_lineage` is `helix-lineage`."""

from helix_lineage.cli.main import main

main()
