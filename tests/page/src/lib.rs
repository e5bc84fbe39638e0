//! The report's page in a real browser: [`browser`] is the browser, and [`chat`] shows messages as
//! a page.

pub mod browser;
pub mod chat;
