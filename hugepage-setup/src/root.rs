//! The directory under which everything is read, `/` unless a test or a rescue system says otherwise.
//!
//! Every read is bounded and every failure names its file, because "invalid digit" helps nobody.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::error::Error;

/// Longest file read as a whole, in bytes; `/proc/cpuinfo` of ten thousand CPUs fits.
pub const TEXT_LEN_MAX: u64 = 16 << 20;

/// Characters of a file's wrong contents that an error repeats.
const EXCERPT_CHARS: usize = 40;

/// A directory that plays the part of `/`.
#[derive(Debug, Clone)]
pub struct Root {
    dir: PathBuf,
}

impl Root {
    /// Reads below `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Whether this is the running machine itself.
    pub fn is_live(&self) -> bool {
        self.dir == Path::new("/")
    }

    /// The directory given to [`Root::new`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where `path`, absolute or not, lies below this root.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let below = path.as_ref().components().filter(|part| matches!(part, Component::Normal(_)));
        self.dir.join(below.collect::<PathBuf>())
    }

    /// `path` with symbolic links resolved and as seen from this root; unchanged if it does not
    /// exist or leads out of the root. The kernel lists mounts under their resolved names.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        let resolved = fs::canonicalize(self.at(path)).ok();
        let root = fs::canonicalize(&self.dir).ok();
        resolved
            .zip(root)
            .and_then(|(path, root)| Some(Path::new("/").join(path.strip_prefix(root).ok()?)))
            .unwrap_or_else(|| path.to_owned())
    }

    /// The whole text of a file.
    ///
    /// # Errors
    /// [`Error::Read`] when the file cannot be read, [`Error::Malformed`] when it is longer than
    /// [`TEXT_LEN_MAX`] or not text.
    pub fn text(&self, path: impl AsRef<Path>) -> Result<String, Error> {
        let file = self.at(path);
        let mut bytes = Vec::new();
        File::open(&file)
            .and_then(|open| open.take(TEXT_LEN_MAX + 1).read_to_end(&mut bytes))
            .map_err(|source| Error::Read { file: file.clone(), source })?;
        if bytes.len() as u64 > TEXT_LEN_MAX {
            return Err(malformed(&file, "a file of at most 16 MiB", "more"));
        }
        String::from_utf8(bytes).map_err(|_| malformed(&file, "text", "other bytes"))
    }

    /// The one number a sysfs file holds.
    ///
    /// # Errors
    /// As [`Root::text`], and [`Error::Malformed`] when it is anything but a number below 2^64.
    pub fn count(&self, path: impl AsRef<Path>) -> Result<u64, Error> {
        let text = self.text(path.as_ref())?;
        text.trim().parse().map_err(|_| malformed(&self.at(path), "a count", &text))
    }

    /// The names in a directory, sorted; names that are not text are left out.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn names(&self, path: impl AsRef<Path>) -> Result<Vec<String>, Error> {
        let dir = self.at(path);
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&dir)? {
                names.extend(entry?.file_name().into_string());
            }
            names.sort_unstable();
            Ok(names)
        };
        read().map_err(|source| Error::Read { file: dir.clone(), source })
    }
}

/// An [`Error::Malformed`] that repeats the start of what was found.
pub(crate) fn malformed(file: &Path, expected: &'static str, found: &str) -> Error {
    let found = found.trim().chars().take(EXCERPT_CHARS).collect();
    Error::Malformed { file: file.to_owned(), expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root_with(bytes: &[u8]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("count"), bytes).unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    #[test]
    fn a_path_cannot_leave_the_root() {
        let root = Root::new("/fake");
        assert_eq!(root.at("/../../etc/passwd"), Path::new("/fake/etc/passwd"));
        assert_eq!(root.at("sys/./kernel/"), Path::new("/fake/sys/kernel"));
    }

    #[test]
    fn a_wrong_count_is_quoted_with_its_file() {
        for text in ["", "many", "-1", "99999999999999999999999999", "1 2"] {
            let (_dir, root) = root_with(text.as_bytes());
            let error = root.count("count").unwrap_err();
            assert!(matches!(&error, Error::Malformed { found, .. } if text.starts_with(found)));
            assert!(error.to_string().contains("/count"), "{error}");
        }
    }

    #[test]
    fn links_are_resolved_within_the_root() {
        let (dir, root) = root_with(b"");
        std::os::unix::fs::symlink(dir.path().join("count"), dir.path().join("link")).unwrap();
        assert_eq!(root.resolve(Path::new("/link")), Path::new("/count"));
        assert_eq!(root.resolve(Path::new("/absent/")), Path::new("/absent/"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_count_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (_dir, root) = root_with(&bytes);
            if let Err(error) = root.count("count") {
                let malformed = matches!(error, Error::Malformed { .. });
                prop_assert!(malformed);
            }
        }
    }
}
