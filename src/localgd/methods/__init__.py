"""Methods by name: a task for the nodes and a merge for the server, and the choice among them."""
