//! Each call of a fixed life failed once, and each kind of bit flipped once.
