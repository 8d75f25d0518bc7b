//! A folder on disk, and the files in it: opened by names that were checked, read in pieces.
//!
//! It knows no paths, kinds or tags; those are `files.rs`' business. This is also the one cut
//! between the build with the feature `files` and the one without, where there is no folder and the
//! compiler knows it.
//!
//! What holds:
//! - Nothing above the folder is opened and no link below it is followed: each name is opened from
//!   the descriptor of its folder, and no name is `..`. A rename meanwhile changes nothing.
//! - Opening never waits for a FIFO or a device, and only regular files are read.
//! - A file gives as many bytes as it had when it was opened, or an error.
//!
//! What does not: reading a regular file does wait for its disk (no system here has readiness for
//! files), a hard link cannot be told from a file, mounted file systems are entered, and the folder
//! is the one that was opened at the start even if its name means another one by now.

#[cfg(not(feature = "files"))]
pub(crate) use self::none::{DiskFile, Folder};
#[cfg(feature = "files")]
pub(crate) use self::real::{DiskFile, Folder};

/// A file that was found.
pub(crate) struct OnDisk {
    pub(crate) file: DiskFile,
    /// Seconds and nanoseconds of its last change, and its inode: another one if it has changed.
    pub(crate) version: (i64, i64, u64),
}

#[cfg(feature = "files")]
mod real {
    use std::fs::File;
    use std::io::{self, ErrorKind, Read};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use bytes::Bytes;
    use rustix::fs::{Mode, OFlags};
    use rustix::io::{Errno, retry_on_intr};

    use super::OnDisk;

    /// See the head of this file.
    pub(crate) struct Folder(OwnedFd);

    impl Folder {
        /// Opens the folder, which may be reached through links.
        pub(crate) fn open(path: &Path) -> io::Result<Self> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(Self(retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?))
        }

        /// The file that these names, all checked, lead to. At most one `openat` a name.
        ///
        /// # Errors
        /// The system has no descriptor or memory left, which says nothing of the file.
        pub(crate) fn find(&self, names: &[String]) -> io::Result<Option<OnDisk>> {
            let error = match self.look_up(names) {
                Ok(found) => return Ok(Some(found)),
                Err(error) => error,
            };
            // The client hears 404 for all of it, so here is where an operator can learn more.
            let (path, text) = (names.join("/"), error.to_string());
            log::debug!("event=no_file path={path:?} error={text:?}");
            let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOMEM].map(Errno::raw_os_error);
            match error.raw_os_error().is_some_and(|code| exhausted.contains(&code)) {
                true => Err(error),
                false => Ok(None),
            }
        }

        fn look_up(&self, names: &[String]) -> io::Result<OnDisk> {
            let (name, folders) = names.split_last().ok_or(ErrorKind::NotFound)?;
            let mut inner = None;
            for folder in folders {
                let at = inner.as_ref().unwrap_or(&self.0);
                inner = Some(open_in(at, folder, OFlags::DIRECTORY)?);
            }
            let file =
                File::from(open_in(inner.as_ref().unwrap_or(&self.0), name, OFlags::NOCTTY)?);
            // Asked of the open file, not of its name: between the two it could become another.
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            let length = metadata.len();
            let version = (metadata.mtime(), metadata.mtime_nsec(), metadata.ino());
            Ok(OnDisk { file: DiskFile { file, remaining: length }, version })
        }
    }

    /// Opens what is called `name` in the folder `at`, unless it is a link.
    ///
    /// Linux could do the whole walk in one call, `openat2` with `RESOLVE_BENEATH` and
    /// `RESOLVE_NO_SYMLINKS`. But kernels before 5.6, the BSDs, macOS and many containers' seccomp
    /// filters need this walk all the same, and a guard with two ways is one too many to test.
    fn open_in(at: &OwnedFd, name: &str, more: OFlags) -> rustix::io::Result<OwnedFd> {
        // NONBLOCK: a FIFO without a writer would hold up the loop. Regular files do not mind.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
        retry_on_intr(|| rustix::fs::openat(at, name, flags, Mode::empty()))
    }

    /// An open file, read from its beginning. Holds one descriptor and no buffer.
    #[derive(Debug)]
    pub(crate) struct DiskFile {
        file: File,
        /// Bytes promised and not yet read. The file may have grown: what came later is not read.
        remaining: u64,
    }

    impl DiskFile {
        /// The next bytes, at most `max`; none at the end (or if `max` is 0).
        ///
        /// # Errors
        /// What the system said, and `UnexpectedEof` if the file was cut short since it was found:
        /// the length is promised by then, so the only honest end is to close the connection.
        pub(crate) fn next_piece(&mut self, max: usize) -> io::Result<Bytes> {
            let wanted =
                usize::try_from(self.remaining).map_or(max, |remaining| remaining.min(max));
            if wanted == 0 {
                return Ok(Bytes::new());
            }
            let mut piece = vec![0; wanted];
            let length = loop {
                match self.file.read(&mut piece) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(length) => break length,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            };
            piece.truncate(length);
            self.remaining -= length as u64;
            Ok(piece.into())
        }

        /// Bytes still to come.
        pub(crate) fn remaining(&self) -> u64 {
            self.remaining
        }
    }
}

#[cfg(not(feature = "files"))]
mod none {
    use std::io;
    use std::path::Path;

    use bytes::Bytes;

    /// See the head of this file.
    pub(crate) enum Folder {}

    /// Without folders there is none, and the compiler knows.
    #[derive(Debug)]
    pub(crate) enum DiskFile {}

    impl DiskFile {
        pub(crate) fn next_piece(&mut self, _: usize) -> io::Result<Bytes> {
            match *self {}
        }

        pub(crate) fn remaining(&self) -> u64 {
            match *self {}
        }
    }

    impl Folder {
        pub(crate) fn open(_: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn find(&self, _: &[String]) -> io::Result<Option<super::OnDisk>> {
            match *self {}
        }
    }
}
