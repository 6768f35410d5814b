"""From a command line to a config that is right, and from that to objects; nothing slow here."""
