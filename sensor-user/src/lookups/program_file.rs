//! What a program is by the contents of its file: the package that Go says it was built from, or the build id of a client
//! that this host has; of a client without either, all of its contents.
//!
//! Files of containers are chosen by others: every read is bounded, every number in the file is checked before it is used,
//! and a file that makes no sense is no client.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

/// Bytes of the ELF header, and of an entry of its tables, for 64 bit.
const HEADER: usize = 64;
const SECTION: usize = 64;
const SEGMENT: usize = 56;
/// Most entries of a table that are looked at.
const ENTRIES_MAX: usize = 256;
/// Most bytes of names of sections, of notes, and of what Go says of a build.
const NAMES_MAX: usize = 16 << 10;
const NOTES_MAX: usize = 4 << 10;
const BUILD_MAX: usize = 64 << 10;
/// Begins what Go says of a build.
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";
/// Flag for strings that follow the header, as Go has them from 1.18 on.
const GO_INLINE: u8 = 2;
/// Bytes of that header, and of the marks around the second string.
const GO_HEADER: usize = 32;
const GO_MARK: usize = 16;
/// Type of a segment that is loaded, and of one with notes.
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Segment flag: can be written.
const PF_W: u32 = 2;
/// Types of a segment that names the loader of its program, and of one with what the loader is to know.
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
/// Most bytes of the latter, which has entries of 16 bytes; the entry with flags, and the flag of a program.
const DYNAMIC_MAX: usize = 4 << 10;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;
/// Type of an ELF file that is loaded at any address.
const ET_DYN: u16 = 3;
/// Type of the note with the linker's build id.
const NT_GNU_BUILD_ID: u32 = 3;

/// Packages that clients are built from, without versions.
const PACKAGES: &[(&str, &str)] = &[
    ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
    ("k8s.io/kubectl", "kubectl"),
    ("github.com/docker/cli/cmd/docker", "docker"),
    ("github.com/containerd/containerd/cmd/ctr", "ctr"),
    ("sigs.k8s.io/cri-tools/cmd/crictl", "crictl"),
    ("github.com/kubernetes-sigs/cri-tools/cmd/crictl", "crictl"),
    ("github.com/containerd/nerdctl/cmd/nerdctl", "nerdctl"),
    ("github.com/containers/podman/cmd/podman", "podman"),
    ("github.com/containers/libpod/cmd/podman", "podman"),
];

/// Most bytes of a file that are looked at as a whole, and most files that are known so.
const WHOLE_MAX: u64 = 256 << 20;
const WHOLES_MAX: usize = 64;
/// Bytes that are read at once then.
const CHUNK: usize = 256 << 10;
/// How much longer than a file was read the reading rests, so that nobody can keep a processor busy with it.
const REST: u32 = 3;

/// SHA-256.
type Digest = [u8; 32];

/// The clients of this host, by what tells them from other programs.
#[derive(Debug, Default)]
pub struct Clients {
    build_ids: HashMap<Vec<u8>, Arc<str>>,
    /// Those with neither package nor build id.
    wholes: Vec<Whole>,
}

/// A client that is known by all of its contents.
#[derive(Debug)]
struct Whole {
    client: Arc<str>,
    len: u64,
    /// Read when a file of the same length asks for it; by then it may have no name any more.
    file: File,
    digest: OnceCell<Option<Digest>>,
}

impl Clients {
    /// Takes a client of this host, so that it is known under every name.
    pub fn learn(&mut self, file: File, client: &Arc<str>) {
        let Some(elf) = Elf::read(&file).filter(|elf| elf.client(&file).is_none()) else { return };
        if let Some(id) = elf.build_id(&file) {
            self.build_ids.insert(id, Arc::clone(client));
        } else if self.wholes.len() < WHOLES_MAX
            && let Some(len) = file.metadata().ok().map(|status| status.len()).filter(|len| *len <= WHOLE_MAX)
        {
            self.wholes.push(Whole { client: Arc::clone(client), len, file, digest: OnceCell::new() });
        }
    }

    /// The client that a program is; `None` for everything else.
    #[must_use]
    pub fn client(&self, file: &File) -> Option<Arc<str>> {
        let elf = Elf::read(file)?;
        elf.client(file)
            .map(Arc::from)
            .or_else(|| self.build_ids.get(&elf.build_id(file)?).cloned())
            .or_else(|| self.by_whole(file))
    }

    /// Reads a file as a whole only when a client has its length.
    fn by_whole(&self, file: &File) -> Option<Arc<str>> {
        let len = file.metadata().ok()?.len();
        let alike: Vec<&Whole> = self.wholes.iter().filter(|known| known.len == len).collect();
        if alike.is_empty() {
            return None;
        }
        let started = Instant::now();
        let digest = digest(file, len);
        let of = |known: &Whole| *known.digest.get_or_init(|| self::digest(&known.file, len));
        let found = alike.into_iter().find(|known| digest.is_some() && of(known) == digest);
        std::thread::sleep(started.elapsed() * REST);
        found.map(|known| Arc::clone(&known.client))
    }
}

/// Whether a file that was executed is a dynamic loader: a library that needs no other to load it.
#[must_use]
pub fn is_loader(file: &File) -> bool {
    Elf::read(file).is_some_and(|elf| elf.is_loader(file))
}

/// Digest of a whole file, which must have this length still.
fn digest(file: &File, len: u64) -> Option<Digest> {
    let mut hasher = Sha256::new();
    let mut offset = 0;
    while offset < len {
        let chunk = up_to(file, offset, CHUNK)?;
        if chunk.is_empty() {
            return None;
        }
        offset += chunk.len() as u64;
        hasher.update(&chunk);
    }
    (offset == len).then(|| hasher.finalize().into())
}

fn client_of_package(package: &str) -> Option<&'static str> {
    // Major versions from 2 on are an element of the path.
    let is_version = |element: &str| {
        element.strip_prefix('v').is_some_and(|number| number.parse::<u8>().is_ok_and(|number| number > 1))
    };
    let elements: Vec<&str> = package.split('/').filter(|element| !is_version(element)).collect();
    let package = elements.join("/");
    PACKAGES.iter().find(|(path, _)| *path == package).map(|(_, client)| *client)
}

/// The tables of a program for 64 bit, little endian, as all the sensor runs beside are.
struct Elf {
    kind: u16,
    sections: Vec<u8>,
    segments: Vec<u8>,
    names_at: usize,
}

impl Elf {
    fn read(file: &File) -> Option<Self> {
        let header = at(file, 0, HEADER)?;
        if !header.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let table = |offset, count, entry, size: usize| {
            let count = usize::from(u16_at(&header, count)?).min(ENTRIES_MAX);
            let is_sound = usize::from(u16_at(&header, entry)?) == size;
            is_sound.then(|| at(file, u64_at(&header, offset)?, count * size))?
        };
        Some(Self {
            kind: u16_at(&header, 16)?,
            segments: table(32, 56, 54, SEGMENT)?,
            // A stripped program may have none.
            sections: table(40, 60, 58, SECTION).unwrap_or_default(),
            names_at: u16_at(&header, 62)?.into(),
        })
    }

    /// The client by the package that it was built from.
    fn client(&self, file: &File) -> Option<&'static str> {
        client_of_package(&self.go_package(file)?)
    }

    /// The package that a Go program says it was built from.
    fn go_package(&self, file: &File) -> Option<String> {
        let start = self.go_section(file).or_else(|| self.first_data())?;
        let text = up_to(file, start, BUILD_MAX)?;
        if !text.starts_with(GO_MAGIC) || text.get(15)? & GO_INLINE == 0 {
            return None;
        }
        let (_version, rest) = go_string(text.get(GO_HEADER..)?)?;
        let (build, _) = go_string(rest)?;
        let build = str::from_utf8(build.get(GO_MARK..build.len().checked_sub(GO_MARK)?)?).ok()?;
        build.lines().find_map(|line| line.strip_prefix("path\t")).map(str::to_owned)
    }

    fn go_section(&self, file: &File) -> Option<u64> {
        let names = self.sections.chunks_exact(SECTION).nth(self.names_at)?;
        let names = up_to(file, u64_at(names, 24)?, NAMES_MAX)?;
        let section = self.sections.chunks_exact(SECTION).find(|section| {
            let name = u32_at(section, 0).and_then(|name| names.get(name as usize..));
            name.is_some_and(|name| name.starts_with(b".go.buildinfo\0"))
        })?;
        u64_at(section, 24)
    }

    /// Where Go puts what it says of a build when nobody moves it.
    fn first_data(&self) -> Option<u64> {
        let is_data = |segment: &&[u8]| {
            u32_at(segment, 0) == Some(PT_LOAD) && u32_at(segment, 4).is_some_and(|flags| flags & PF_W != 0)
        };
        u64_at(self.segments.chunks_exact(SEGMENT).find(is_data)?, 8)
    }

    /// Static programs that may be loaded at any address need no loader either, and say that they are programs.
    fn is_loader(&self, file: &File) -> bool {
        let find =
            |kind| self.segments.chunks_exact(SEGMENT).find(|segment| u32_at(segment, 0) == Some(kind));
        if self.kind != ET_DYN || find(PT_INTERP).is_some() {
            return false;
        }
        let Some(segment) = find(PT_DYNAMIC) else { return false };
        let entries = (|| {
            let size = usize::try_from(u64_at(segment, 32)?).ok()?.min(DYNAMIC_MAX);
            up_to(file, u64_at(segment, 8)?, size)
        })();
        let is_program = |entry: &[u8]| {
            u64_at(entry, 0) == Some(DT_FLAGS_1)
                && u64_at(entry, 8).is_some_and(|flags| flags & DF_1_PIE != 0)
        };
        entries.is_some_and(|entries| !entries.chunks_exact(16).any(is_program))
    }

    fn build_id(&self, file: &File) -> Option<Vec<u8>> {
        let notes = |segment: &&[u8]| u32_at(segment, 0) == Some(PT_NOTE);
        self.segments.chunks_exact(SEGMENT).filter(notes).find_map(|segment| {
            let size = usize::try_from(u64_at(segment, 32)?).ok()?.min(NOTES_MAX);
            gnu_build_id(&up_to(file, u64_at(segment, 8)?, size)?)
        })
    }
}

/// The build id among notes: lengths of name and contents, type, both padded to four bytes.
fn gnu_build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    loop {
        let (name_len, len) = (u32_at(notes, 0)? as usize, u32_at(notes, 4)? as usize);
        let kind = u32_at(notes, 8)?;
        let name = notes.get(12..)?.get(..name_len)?;
        let rest = notes.get(12..)?.get(name_len.checked_next_multiple_of(4)?..)?;
        let contents = rest.get(..len)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" && !contents.is_empty() {
            return Some(contents.to_owned());
        }
        notes = rest.get(len.checked_next_multiple_of(4)?..)?;
    }
}

/// A string of Go with its length in front, seven bits a byte, and what is behind it.
fn go_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len = 0_usize;
    for (index, byte) in text.iter().enumerate().take(4) {
        len |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return text.get(index + 1..)?.split_at_checked(len);
        }
    }
    None
}

/// Exactly `len` bytes.
fn at(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// At most `most` bytes.
fn up_to(file: &File, offset: u64, most: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut len = 0;
    while len < most {
        match file.read_at(&mut bytes[len..], offset.checked_add(len as u64)?) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    bytes.truncate(len);
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// A program with one writable segment, in which Go says what it was built from, and one with notes.
    fn program(package: &str, build_id: &[u8]) -> Vec<u8> {
        let mut notes = Vec::new();
        for (name, kind, contents) in [(&b"Go\0\0"[..], 4_u32, &b"abcde"[..]), (b"GNU\0", 3, build_id)] {
            for number in [name.len() as u32, contents.len() as u32, kind] {
                notes.extend_from_slice(&number.to_le_bytes());
            }
            notes.extend_from_slice(name);
            notes.extend_from_slice(contents);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        let build =
            [&[0; GO_MARK][..], format!("path\t{package}\nmod\tx\n").as_bytes(), &[0; GO_MARK]].concat();
        let mut go = GO_MAGIC.to_vec();
        go.extend_from_slice(&[8, GO_INLINE]);
        go.resize(GO_HEADER, 0);
        go.extend_from_slice(b"\x04go1.");
        go.extend_from_slice(&[build.len() as u8 | 0x80, (build.len() >> 7) as u8]);
        go.extend_from_slice(&build);

        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(HEADER, 0);
        bytes[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        bytes[54..56].copy_from_slice(&(SEGMENT as u16).to_le_bytes());
        bytes[56..58].copy_from_slice(&2_u16.to_le_bytes());
        let go_at = (HEADER + 2 * SEGMENT) as u64;
        for (kind, flags, offset, size) in
            [(PT_LOAD, PF_W, go_at, go.len()), (PT_NOTE, 4, go_at + go.len() as u64, notes.len())]
        {
            let mut segment = vec![0; SEGMENT];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[4..8].copy_from_slice(&flags.to_le_bytes());
            segment[8..16].copy_from_slice(&offset.to_le_bytes());
            segment[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            bytes.extend_from_slice(&segment);
        }
        [bytes, go, notes].concat()
    }

    #[test]
    fn a_go_program_is_known_by_its_package() {
        let known = Clients::default();
        for (package, expected) in [
            ("k8s.io/kubernetes/cmd/kubectl", Some("kubectl")),
            ("github.com/docker/cli/cmd/docker", Some("docker")),
            ("github.com/containerd/containerd/v2/cmd/ctr", Some("ctr")),
            ("github.com/containers/podman/v5/cmd/podman", Some("podman")),
            ("github.com/containerd/containerd/cmd/containerd", None),
            ("example.com/github.com/docker/cli/cmd/docker", None),
            ("", None),
        ] {
            let found = known.client(&file(&program(package, b"1")));
            assert_eq!(found.as_deref(), expected, "{package}");
        }
    }

    #[test]
    fn other_programs_are_known_by_the_build_id_of_a_client_here() {
        let mut known = Clients::default();
        known.learn(file(&program("x", b"0123456789")), &"podman".into());
        assert_eq!(known.wholes.len(), 0, "the build id is enough");
        let found = |id| known.client(&file(&program("y", id)));
        assert_eq!(found(b"0123456789").as_deref(), Some("podman"));
        assert_eq!(found(b"012345678"), None);
    }

    #[test]
    fn a_client_that_says_nothing_of_itself_is_known_by_all_of_its_contents() {
        let mut silent = program("x", b"");
        silent.extend_from_slice(&[7; CHUNK + 1]);
        let mut known = Clients::default();
        known.learn(file(&silent), &"crictl".into());
        assert_eq!((known.build_ids.len(), known.wholes.len()), (0, 1));
        assert_eq!(known.client(&file(&silent)).as_deref(), Some("crictl"));
        let mut other = silent.clone();
        *other.last_mut().unwrap() = 8;
        assert_eq!(known.client(&file(&other)), None, "the last byte is another one");
        silent.push(7);
        assert_eq!(known.client(&file(&silent)), None, "it is longer");
        known.learn(file(b"#!/bin/sh\nexec podman"), &"docker".into());
        assert_eq!(known.wholes.len(), 1, "a script is run by its interpreter");
    }

    #[test]
    fn damaged_files_are_no_clients_and_do_no_harm() {
        let whole = program("github.com/docker/cli/cmd/docker", b"0123456789");
        let known = Clients::default();
        for len in 0..whole.len() {
            let _ = known.client(&file(&whole[..len]));
        }
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] = 0xff;
            let _ = known.client(&file(&damaged));
        }
        for bytes in [&b""[..], b"#!/bin/sh\n", &[0xff; 4096]] {
            assert_eq!(known.client(&file(bytes)), None);
        }
    }

    #[test]
    fn the_test_itself_is_no_client() {
        let own = File::open("/proc/self/exe").unwrap();
        assert_eq!(Clients::default().client(&own), None);
    }
}
