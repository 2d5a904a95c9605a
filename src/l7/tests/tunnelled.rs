//! Both halves with a real tunnel between them.
