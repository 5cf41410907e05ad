//! Writes a set of files: all of them, or none.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A file to write.
#[derive(Debug)]
pub(super) struct NewFile {
    name: String,
    text: String,
    mode: u32,
}

impl NewFile {
    /// A file that every user may read.
    pub(super) fn public(name: impl Into<String>, text: String) -> Self {
        Self { name: name.into(), text, mode: 0o644 }
    }

    /// A file that only its owner may read.
    pub(super) fn secret(name: impl Into<String>, text: String) -> Self {
        Self { name: name.into(), text, mode: 0o600 }
    }
}

/// Writes the files into the folder, and creates the folder if it does not exist. If a file exists already or cannot be
/// written, none of them is left.
pub(super) fn write_all(dir: &Path, files: &[NewFile]) -> Result<(), Failure> {
    let in_the_way: Vec<_> =
        files.iter().map(|file| dir.join(&file.name)).filter(|path| path.symlink_metadata().is_ok()).collect();
    if !in_the_way.is_empty() {
        return Err(exists(&in_the_way));
    }
    let made_dir = !dir.exists();
    if made_dir {
        let made = DirBuilder::new().recursive(true).create(dir);
        made.map_err(|error| Failure::Input(format!("cannot make the folder {}: {error}", dir.display())))?;
    }
    let mut written = Vec::new();
    for file in files {
        let path = dir.join(&file.name);
        if let Err(error) = write(&path, file, &mut written) {
            take_back(&written, made_dir.then_some(dir));
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => exists(&[path]),
                _ => Failure::Input(format!("cannot write {}: {error}; nothing was left there", path.display())),
            });
        }
    }
    Ok(())
}

/// Replaces files of the folder. All new files are written before the first one takes the place of an old one, so a full disk
/// changes nothing. A reader never sees a part of a file.
pub(super) fn replace_all(dir: &Path, files: &[NewFile]) -> Result<(), Failure> {
    let mut written = Vec::new();
    stage(dir, files, &mut written).map_err(|error| {
        take_back(&written, None);
        Failure::Input(format!("cannot replace files in {}: {error}", dir.display()))
    })
}

fn stage(dir: &Path, files: &[NewFile], written: &mut Vec<PathBuf>) -> io::Result<()> {
    for file in files {
        write(&dir.join(format!(".{}.{}.new", file.name, std::process::id())), file, written)?;
    }
    for (new, file) in written.iter().zip(files) {
        std::fs::rename(new, dir.join(&file.name))?;
    }
    Ok(())
}

fn write(path: &Path, file: &NewFile, written: &mut Vec<PathBuf>) -> io::Result<()> {
    // The mode is set when the file is created, and not later.
    let mut open = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(path)?;
    written.push(path.to_owned());
    open.write_all(file.text.as_bytes())?;
    open.sync_all()
}

/// Removes the written files. A file that cannot be removed belongs to another process by then.
fn take_back(written: &[PathBuf], dir: Option<&Path>) {
    for path in written {
        let _ = std::fs::remove_file(path);
    }
    if let Some(dir) = dir {
        let _ = std::fs::remove_dir(dir);
    }
}

fn exists(paths: &[PathBuf]) -> Failure {
    let paths = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Failure::Input(format!(
        "in the way: {paths}; nothing was written: choose another --dir, or --add nodes to this one"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files(names: &[&str]) -> Vec<NewFile> {
        names.iter().map(|name| NewFile::secret(*name, format!("text of {name}"))).collect()
    }

    #[test]
    fn secrets_are_for_their_owner_only() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("new/folder");
        write_all(&dir, &files(&["a.key"])).unwrap();
        let mode = std::fs::metadata(dir.join("a.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn files_are_replaced_together() {
        let temp = tempfile::tempdir().unwrap();
        write_all(temp.path(), &files(&["a", "b"])).unwrap();
        let new = [NewFile::secret("a", "new".to_owned()), NewFile::public("no/such/folder", String::new())];
        assert!(replace_all(temp.path(), &new).is_err());
        assert_eq!(std::fs::read_to_string(temp.path().join("a")).unwrap(), "text of a");
        replace_all(temp.path(), &new[..1]).unwrap();
        assert_eq!(std::fs::read_to_string(temp.path().join("a")).unwrap(), "new");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_file_in_the_way_stays_and_nothing_is_written() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("b"), "mine").unwrap();
        assert!(write_all(temp.path(), &files(&["a", "b"])).is_err());
        assert_eq!(std::fs::read_to_string(temp.path().join("b")).unwrap(), "mine");
        assert!(!temp.path().join("a").exists());
    }

    #[test]
    fn files_written_before_a_failure_are_removed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("new");
        assert!(write_all(&dir, &files(&["a", "no/such/folder"])).is_err());
        assert!(!dir.exists());
    }
}
