"""From what is there to what is wanted: one apply, live changes, and what an earlier engine or boot has left."""
