"""Operations of the network area, in modules that import nothing heavy."""
