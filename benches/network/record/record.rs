//! What is measured, what became of it, and how it is shown. Nothing here touches the network: `tests/it` renders the page from
//! the recorded figures as well.

#![allow(dead_code, reason = "the bench and the tests use different parts")]

pub mod case;
pub mod chart;
pub mod figures;
pub mod page;
pub mod tables;
pub mod targets;
