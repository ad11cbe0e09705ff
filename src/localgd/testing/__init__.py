"""What tells whether a method of one's own keeps the contract, before it meets anybody's rows."""
