"""Tables of traces from files and the Hub."""
