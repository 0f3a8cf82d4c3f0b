//! Parameters of headers such as `form-data; name="job"`.

/// The value of a parameter; `None` where it is missing or empty.
pub(super) fn parameter(header: &str, wanted: &str) -> Option<String> {
    let (_, mut rest) = header.split_once(';')?;
    loop {
        let (name, value) = rest.split_once('=')?;
        let name = name.rsplit(';').next().unwrap_or(name).trim();
        let (text, behind) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_string(), &value[end..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(text).filter(|text| !text.is_empty());
        }
        (_, rest) = behind.split_once(';')?;
    }
}

/// A text up to its closing quote, and what is behind that. Only a quote and a backslash can be
/// escaped: browsers send any other backslash as it is.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => {
                let escaped = characters.next_if(|(_, next)| matches!(next, '"' | '\\'));
                text.push(escaped.map_or('\\', |(_, next)| next));
            }
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_however_they_are_written() {
        for (written, name, file_name) in [
            ("form-data; name=\"job\"", "job", ""),
            ("form-data; name=job ; filename = \"a; name=b\"", "job", "a; name=b"),
            ("form-data; filename=\"x.dat\"; NAME=\"file\"", "file", "x.dat"),
            (r#"form-data; name="f"; filename="a\"b\\c\d""#, "f", r#"a"b\c\d"#),
            ("form-data; filename*=utf-8''x; name=\"日本\"", "日本", ""),
            ("form-data; new; name=f", "f", ""),
            ("form-data", "", ""),
            ("form-data; name=\"open", "", ""),
            ("", "", ""),
        ] {
            let read = |wanted| parameter(written, wanted).unwrap_or_default();
            assert_eq!((&*read("name"), &*read("filename")), (name, file_name), "{written}");
        }
    }
}
