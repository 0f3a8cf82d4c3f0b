//! A form (multipart/form-data) that is composed while it is sent: a job's request, and its files as
//! they are read. Its length is known before.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::board::files;
use crate::board::uploads::Upload;
use crate::error::{Result, is_shortage, reason};

/// See the module. Read it to its end for all of the form.
pub(crate) struct Form {
    content_type: String,
    length: u64,
    pieces: VecDeque<Piece>,
}

enum Piece {
    Text(Cursor<Vec<u8>>),
    /// A file, opened when its turn comes, and how many bytes of it are missing yet.
    File(PathBuf, Option<File>, u64),
}

impl Form {
    /// A form of a request and these files, with the lengths that they are known to have.
    pub(crate) fn new(request: &Value, uploads: &[Upload]) -> Result<Form> {
        // Random, so that no file can have been made with it inside.
        Ok(Form::between(files::random_hex::<16>()?, request, uploads))
    }

    /// The same with what stands between its parts, which stands in none of them.
    pub(crate) fn between(boundary: String, request: &Value, uploads: &[Upload]) -> Form {
        let head = |disposition: &str| {
            format!("--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n")
        };
        let mut form = Form {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            length: 0,
            pieces: VecDeque::new(),
        };
        form.text(&format!("{}{request}\r\n", head("name=\"job\"")));
        for upload in uploads {
            let name = upload.name.replace('\\', "\\\\").replace('"', "\\\"");
            form.text(&head(&format!("name=\"file\"; filename=\"{name}\"")));
            form.length += upload.size;
            form.pieces.push_back(Piece::File(upload.path.clone(), None, upload.size));
            form.text("\r\n");
        }
        form.text(&format!("--{boundary}--\r\n"));
        form
    }

    /// Its Content-Type.
    pub(crate) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// How many bytes it has.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    fn text(&mut self, text: &str) {
        self.length += text.len() as u64;
        match self.pieces.back_mut() {
            Some(Piece::Text(cursor)) => cursor.get_mut().extend_from_slice(text.as_bytes()),
            _ => self.pieces.push_back(Piece::Text(Cursor::new(text.into()))),
        }
    }
}

impl Read for Form {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.pieces.front_mut() {
            let read = match piece {
                Piece::Text(text) => text.read(buffer)?,
                Piece::File(path, file, left) => {
                    let read = read_file(path, file, left, buffer);
                    read.map_err(|error| match is_shortage(&error) {
                        true => error,
                        false => {
                            io::Error::other(format!("{}: {}", path.display(), reason(&error)))
                        }
                    })?
                }
            };
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.pieces.pop_front();
        }
        Ok(0)
    }
}

fn read_file(
    path: &Path,
    opened: &mut Option<File>,
    left: &mut u64,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let most = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    if most == 0 {
        return Ok(0);
    }
    let file = match opened {
        Some(file) => file,
        none => none.insert(File::open(path)?),
    };
    let read = file.read(&mut buffer[..most])?;
    if read == 0 {
        return Err(io::Error::other(format!("{left} bytes of it are gone")));
    }
    *left -= read as u64;
    Ok(read)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn a_form_has_the_length_that_it_says_whatever_it_is_read_with() {
        let dir = std::env::temp_dir().join(format!("form-{}", files::random_name().unwrap()));
        fs::create_dir(&dir).unwrap();
        let contents =
            [("a \"b\\c", vec![7; 70_000]), ("empty", Vec::new()), ("x", b"\r\n--".into())];
        let uploads: Vec<Upload> = contents
            .iter()
            .map(|(name, content)| {
                let path = dir.join(name);
                fs::write(&path, content).unwrap();
                Upload { name: name.to_string(), path, size: content.len() as u64 }
            })
            .collect();
        for size in [1, 5, 4096, 1 << 20] {
            let mut form = Form::new(&json!({"command": "é"}), &uploads).unwrap();
            let (mut text, mut buffer) = (Vec::new(), vec![0; size]);
            loop {
                let read = form.read(&mut buffer).unwrap();
                if read == 0 {
                    break;
                }
                text.extend_from_slice(&buffer[..read]);
            }
            assert_eq!(text.len() as u64, form.length());
            let (_, boundary) = form.content_type().split_once('=').unwrap();
            let part = |head: &str, content: &[u8]| {
                let head =
                    format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
                [head.as_bytes(), content, b"\r\n"].concat()
            };
            let expected = [
                part("name=\"job\"", "{\"command\":\"é\"}".as_bytes()),
                part("name=\"file\"; filename=\"a \\\"b\\\\c\"", &contents[0].1),
                part("name=\"file\"; filename=\"empty\"", b""),
                part("name=\"file\"; filename=\"x\"", b"\r\n--"),
                format!("--{boundary}--\r\n").into_bytes(),
            ];
            assert!(text == expected.concat());
        }
        // A file that has lost bytes, or is gone, is told as what it is.
        for (remains, part) in [(true, "x: 1 bytes of it are gone"), (false, "x: no such file")] {
            match remains {
                true => fs::write(dir.join("x"), "\r\n-").unwrap(),
                false => fs::remove_file(dir.join("x")).unwrap(),
            }
            let mut form = Form::new(&json!({}), &uploads).unwrap();
            let error = io::copy(&mut form, &mut io::sink()).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
