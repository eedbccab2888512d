//! The stack without an operating system.

mod common;
mod hostile;
mod transfer;
