"""The operations of the supervision area. They import nothing heavy: the spawner loads them too."""
