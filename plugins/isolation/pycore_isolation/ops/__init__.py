"""The operations of the isolation area. They import nothing heavy: the spawner loads them too."""
