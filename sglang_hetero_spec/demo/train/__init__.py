"""How the demo's target and drafters are trained. Offline only: nothing here runs in a server."""
