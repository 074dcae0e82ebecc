"""Operations, one file each: how a stage is evaluated, what rounding must add to it, and its local derivative."""
