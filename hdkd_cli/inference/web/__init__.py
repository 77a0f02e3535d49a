"""A page on which anybody can see a network leave early: static files, no server of its own."""
