"""What nodes do in a round (tasks), what the server does with the sum (merges), and the named pairs of both."""
