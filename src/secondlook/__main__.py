"""`python -m secondlook VERB`."""

from secondlook.cli import main

raise SystemExit(main())
