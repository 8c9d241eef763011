"""Images that are made here: of a container, of a tar, of a directory, and with changes to what one says of itself."""
