"""This room is the top floor: the command line, and what runs trials on this machine."""
