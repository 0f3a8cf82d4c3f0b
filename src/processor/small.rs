//! Keeping a supervisor small while its job runs: there is one for every running job.

use std::fs;

use nix::libc;

/// Gives back the memory under this program's code. The kernel maps code in pieces far larger
/// than what waiting needs, and reads it again, from its cache, when it is needed. A hint.
pub(super) fn give_back_code() {
    let maps = fs::read("/proc/self/maps").unwrap_or_default();
    // Paths in it may be anything.
    for line in String::from_utf8_lossy(&maps).lines() {
        let Some((start, end)) = code(line) else { continue };
        // SAFETY: a mapping of a file that never could be written to has nothing that the file
        // does not have; without its pages it reads the same.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The range of a line of `/proc/self/maps` that maps code of a file, or the constants at its
/// beginning. What follows the code is left alone: it may have been written to at the start.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (mode, offset, _device) = (fields.next()?, fields.next()?, fields.next()?);
    let constant = mode == "r-xp" || mode == "r--p" && offset == "00000000";
    let of_a_file = constant && fields.next()? != "0";
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?)).filter(|_| of_a_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files() {
        let text = "00270000-00451000 r-xp 0006f000 fe:00 5545987    /x/processor";
        assert_eq!(code(text), Some((0x27_0000, 0x45_1000)));
        assert_eq!(code(&text.replace("r-xp", "r--p")), None);
        let constants = "00200000-00270000 r--p 00000000 fe:00 5545987    /x/processor";
        assert_eq!(code(constants), Some((0x20_0000, 0x27_0000)));
        assert_eq!(code("7f0a2000-7f0a4000 r--p 00000000 00:00 0    [vvar]"), None);
        assert_eq!(code("7f0a2000-7f0a4000 r-xp 00000000 00:00 0    [vdso]"), None);
        give_back_code();
    }
}
