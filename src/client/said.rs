//! What a server says in words: of any length there, and with anything in it.

/// Most characters of it that are kept.
pub(crate) const LONGEST: usize = 1000;

/// As much of it as is kept, in one line.
pub(crate) fn bounded(text: &str) -> String {
    let mut characters = text.chars();
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut kept: String = characters.by_ref().take(LONGEST).map(plain).collect();
    if characters.next().is_some() {
        kept.push('…');
    }
    kept
}
