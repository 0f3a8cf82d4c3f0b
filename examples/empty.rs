//! A static program that does nothing: the floor of starting any.

fn main() {}
