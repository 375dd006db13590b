//! The formats of the topics, by version. What is outside is text and bytes; what is inside has been proven.

pub mod v1;
