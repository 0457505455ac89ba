"""What the command line's longer verbs do, a module each."""
