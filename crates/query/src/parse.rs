//! From text to a checked tree.

use kaudit_event::MicroTime;

use crate::diagnostic::Diagnostic;
use crate::expr::Expr;

pub(crate) fn parse(_text: &str, _now: MicroTime) -> Result<Expr, Vec<Diagnostic>> {
    Ok(Expr::Everything)
}
