"""Other people's firewall rules: whether they let a packet through, and which rule says so."""
