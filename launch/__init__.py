"""This room is the top floor: the command line, one verb a file, and what runs trials on this machine."""
