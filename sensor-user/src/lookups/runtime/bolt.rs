//! A reader of bbolt databases, the format of containerd's metadata.
//!
//! It takes no lock, so that it never waits for the daemon and the daemon never waits for it. That is sound because the
//! daemon never writes to pages that the newest complete transaction uses: a look-up that finds the same transaction
//! before and after has read one consistent state, and any other look-up is repeated. What a page says is checked all
//! the same, since nothing promises that the file is a database.
//!
//! **Source**: <https://github.com/etcd-io/bbolt>, `internal/common/{page,meta,bucket}.go`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Largest page with its overflow pages; only one huge value makes a page that long.
const PAGE_MAX: u64 = 4 << 20;
/// Deepest tree; real ones have three or four levels.
const DEPTH_MAX: usize = 16;
/// Repetitions of a look-up that a transaction of the daemon has outrun.
const ATTEMPTS: usize = 8;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKET_HEADER: usize = 16;
const FLAG_BRANCH: u16 = 0x01;
const FLAG_LEAF: u16 = 0x02;
const LEAF_IS_BUCKET: u32 = 0x01;

/// The newest complete transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meta {
    page_size: u64,
    root: u64,
    /// Pages from here on are not in use.
    end: u64,
    transaction: u64,
}

/// A nested map: the page of its root, or, when it is small, the page itself.
#[derive(Clone, Debug)]
enum Bucket {
    At(u64),
    Inline(Vec<u8>),
}

enum Entry {
    Bucket(Bucket),
    Value(Vec<u8>),
}

/// Values of some keys of one bucket, in the order of the keys; `None` for a key that is not there.
type Values = Vec<Option<Vec<u8>>>;

/// Reads values of the bucket that nested names lead to.
///
/// Each name in `keys` is a path below that bucket, since containerd keeps labels one bucket deeper. Returns `None` when
/// there is no such bucket, or the file is no database that can be read now.
pub(super) fn values(file: &File, bucket: &[&str], keys: &[&[&str]]) -> Option<Values> {
    for _ in 0..ATTEMPTS {
        let meta = read_meta(file)?;
        let found = Snapshot { file, meta }.values(bucket, keys);
        if read_meta(file)? == meta {
            return found;
        }
    }
    None
}

/// The newer of the two valid meta pages.
fn read_meta(file: &File) -> Option<Meta> {
    let first = read_exact(file, 0, 4096)?;
    let from_first = parse_meta(&first);
    // The second one is a page further, and the size of a page is that of the machine that made the file.
    let page_size = from_first.map_or(4096, |meta| meta.page_size);
    let from_second = read_exact(file, page_size, 4096).and_then(|page| parse_meta(&page));
    from_first.into_iter().chain(from_second).max_by_key(|meta| meta.transaction)
}

fn parse_meta(page: &[u8]) -> Option<Meta> {
    let meta = page.get(HEADER..HEADER + 64)?;
    let valid = u32_at(meta, 0)? == MAGIC
        && u32_at(meta, 4)? == VERSION
        && fnv1a(meta.get(..56)?) == u64_at(meta, 56)?;
    let page_size = u64::from(u32_at(meta, 8)?);
    (valid && (512..=65_536).contains(&page_size)).then_some(Meta {
        page_size,
        root: u64_at(meta, 16)?,
        end: u64_at(meta, 40)?,
        transaction: u64_at(meta, 48)?,
    })
}

struct Snapshot<'a> {
    file: &'a File,
    meta: Meta,
}

impl Snapshot<'_> {
    fn values(&self, path: &[&str], keys: &[&[&str]]) -> Option<Values> {
        let mut bucket = Bucket::At(self.meta.root);
        for name in path {
            bucket = self.bucket(&bucket, name)?;
        }
        Some(keys.iter().map(|key| self.value(&bucket, key)).collect())
    }

    fn value(&self, bucket: &Bucket, key: &[&str]) -> Option<Vec<u8>> {
        let (name, buckets) = key.split_last()?;
        let mut bucket = bucket.clone();
        for name in buckets {
            bucket = self.bucket(&bucket, name)?;
        }
        match self.get(&bucket, name)? {
            Entry::Value(value) => Some(value),
            Entry::Bucket(_) => None,
        }
    }

    fn bucket(&self, parent: &Bucket, name: &str) -> Option<Bucket> {
        match self.get(parent, name)? {
            Entry::Bucket(bucket) => Some(bucket),
            Entry::Value(_) => None,
        }
    }

    /// Walks down a tree of pages.
    fn get(&self, bucket: &Bucket, name: &str) -> Option<Entry> {
        let mut page = match bucket {
            Bucket::At(id) => self.page(*id)?,
            Bucket::Inline(page) => page.clone(),
        };
        for _ in 0..DEPTH_MAX {
            match u16_at(&page, 8)? {
                FLAG_LEAF => return leaf_entry(&page, name.as_bytes()),
                FLAG_BRANCH => page = self.page(branch_child(&page, name.as_bytes())?)?,
                _ => return None,
            }
        }
        None
    }

    fn page(&self, id: u64) -> Option<Vec<u8>> {
        // Pages 0 and 1 are the meta pages.
        if id < 2 || id >= self.meta.end {
            return None;
        }
        let offset = id.checked_mul(self.meta.page_size)?;
        let header = read_exact(self.file, offset, HEADER)?;
        let length = (u64::from(u32_at(&header, 12)?) + 1).checked_mul(self.meta.page_size)?;
        if u64_at(&header, 0)? != id || length > PAGE_MAX {
            return None;
        }
        read_exact(self.file, offset, usize::try_from(length).ok()?)
    }
}

/// The element with this key.
fn leaf_entry(page: &[u8], name: &[u8]) -> Option<Entry> {
    for index in 0..usize::from(u16_at(page, 10)?) {
        let element = HEADER + index * ELEMENT;
        let key = element.checked_add(u32_at(page, element + 4)? as usize)?;
        let value = key.checked_add(u32_at(page, element + 8)? as usize)?;
        if page.get(key..value)? != name {
            continue;
        }
        let value = page.get(value..value.checked_add(u32_at(page, element + 12)? as usize)?)?;
        if u32_at(page, element)? & LEAF_IS_BUCKET == 0 {
            return Some(Entry::Value(value.to_vec()));
        }
        return Some(Entry::Bucket(match u64_at(value, 0)? {
            0 => Bucket::Inline(value.get(BUCKET_HEADER..)?.to_vec()),
            root => Bucket::At(root),
        }));
    }
    None
}

/// The page below which this key must be: that of the last element whose key is not greater.
fn branch_child(page: &[u8], name: &[u8]) -> Option<u64> {
    let mut child = None;
    for index in 0..usize::from(u16_at(page, 10)?) {
        let element = HEADER + index * ELEMENT;
        let start = element.checked_add(u32_at(page, element)? as usize)?;
        let key = page.get(start..start.checked_add(u32_at(page, element + 4)? as usize)?)?;
        if key > name && child.is_some() {
            break;
        }
        child = Some(u64_at(page, element + 8)?);
    }
    child
}

fn read_exact(file: &File, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// The database has the byte order of the machine that made it, which is this one.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use super::*;

    const PAGE: usize = 4096;

    /// A tree to write: buckets hold further trees.
    pub enum Node<'a> {
        Value(&'a [u8]),
        Bucket(&'a [(&'a str, Node<'a>)]),
    }

    /// Writes a database whose first bucket is spread over a branch and its leaves, so that every kind of page occurs.
    pub fn write(tree: &[(&str, Node<'_>)], path: &std::path::Path) {
        let mut pages: Vec<Vec<u8>> = vec![Vec::new(); 2];
        let root = write_tree(tree, &mut pages);
        let end = pages.len() as u64;
        for (index, transaction) in [(0, 7_u64), (1, 6)] {
            pages[index] = meta_page(index as u64, root, end, transaction);
        }
        let mut file = File::create(path).unwrap();
        for page in pages {
            file.write_all(&page).unwrap();
        }
    }

    fn header(id: u64, flags: u16, count: usize) -> Vec<u8> {
        let mut page = id.to_ne_bytes().to_vec();
        page.extend(flags.to_ne_bytes());
        page.extend(u16::try_from(count).unwrap().to_ne_bytes());
        page.extend(0_u32.to_ne_bytes());
        page
    }

    fn meta_page(id: u64, root: u64, end: u64, transaction: u64) -> Vec<u8> {
        let mut meta = Vec::new();
        for word in [MAGIC, VERSION, PAGE as u32, 0] {
            meta.extend(word.to_ne_bytes());
        }
        for word in [root, 0, 0, end, transaction] {
            meta.extend(word.to_ne_bytes());
        }
        let checksum = fnv1a(&meta);
        meta.extend(checksum.to_ne_bytes());
        let mut page = header(id, 0x04, 0);
        page.extend(meta);
        page.resize(PAGE, 0);
        page
    }

    /// One leaf per key below a branch; the values of buckets with only values are inline.
    fn write_tree(tree: &[(&str, Node<'_>)], pages: &mut Vec<Vec<u8>>) -> u64 {
        let leaves: Vec<u64> = tree
            .iter()
            .map(|entry| {
                let body = leaf_body(std::slice::from_ref(entry), pages);
                push(FLAG_LEAF, 1, body, pages)
            })
            .collect();
        let mut elements = Vec::new();
        let mut keys: Vec<u8> = Vec::new();
        for (index, ((key, _), leaf)) in tree.iter().zip(&leaves).enumerate() {
            let position = (tree.len() - index) * ELEMENT + keys.len();
            elements.extend((position as u32).to_ne_bytes());
            elements.extend((key.len() as u32).to_ne_bytes());
            elements.extend(leaf.to_ne_bytes());
            keys.extend(key.as_bytes());
        }
        elements.extend(keys);
        push(FLAG_BRANCH, tree.len(), elements, pages)
    }

    fn push(flags: u16, count: usize, body: Vec<u8>, pages: &mut Vec<Vec<u8>>) -> u64 {
        let id = pages.len() as u64;
        let mut page = header(id, flags, count);
        page.extend(body);
        assert!(page.len() <= PAGE);
        page.resize(PAGE, 0);
        pages.push(page);
        id
    }

    fn leaf_body(entries: &[(&str, Node<'_>)], pages: &mut Vec<Vec<u8>>) -> Vec<u8> {
        let (mut elements, mut data): (Vec<u8>, Vec<u8>) = Default::default();
        for (index, (key, node)) in entries.iter().enumerate() {
            let (flags, value) = match node {
                Node::Value(value) => (0, value.to_vec()),
                Node::Bucket(tree) if tree.iter().all(|(_, node)| matches!(node, Node::Value(_))) => {
                    let mut value = vec![0; BUCKET_HEADER];
                    value.extend(header(0, FLAG_LEAF, tree.len()));
                    value.extend(leaf_body(tree, pages));
                    (LEAF_IS_BUCKET, value)
                }
                Node::Bucket(tree) => {
                    let mut value = write_tree(tree, pages).to_ne_bytes().to_vec();
                    value.extend(0_u64.to_ne_bytes());
                    (LEAF_IS_BUCKET, value)
                }
            };
            let position = (entries.len() - index) * ELEMENT + data.len();
            for word in [flags, position as u32, key.len() as u32, value.len() as u32] {
                elements.extend(word.to_ne_bytes());
            }
            data.extend(key.as_bytes());
            data.extend(value);
        }
        elements.extend(data);
        elements
    }

    use Node::{Bucket as Nested, Value as Plain};

    const LABELS: &[(&str, Node<'_>)] = &[("nerdctl/name", Plain(b"web"))];
    const CONTAINER: &[(&str, Node<'_>)] = &[("image", Plain(b"app:1")), ("labels", Nested(LABELS))];
    const TREE: &[(&str, Node<'_>)] =
        &[("a", Plain(b"1")), ("v1", Nested(&[("k8s.io", Nested(CONTAINER)), ("lab", Nested(CONTAINER))]))];

    const KEYS: &[&[&str]] = &[&["image"], &["labels", "nerdctl/name"], &["labels"], &["x"]];

    /// A database with [`TREE`], open for writing too.
    fn database() -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        write(TREE, &path);
        let file = File::options().read(true).write(true).open(&path).unwrap();
        (directory, file)
    }

    /// Looks values up while one byte is wrong.
    fn with_spoiled_byte(file: &File, at: u64) -> Option<Values> {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
        let found = values(file, &["v1", "lab"], KEYS);
        file.write_all_at(&byte, at).unwrap();
        found
    }

    #[test]
    fn values_are_found_through_every_kind_of_page() {
        let (_keep, file) = database();
        let expected = Some(vec![Some(b"app:1".to_vec()), Some(b"web".to_vec()), None, None]);
        assert_eq!(values(&file, &["v1", "lab"], KEYS), expected);
        assert_eq!(values(&file, &["v1", "nowhere"], KEYS), None);
        // Either meta page alone will do.
        for meta in [HEADER, PAGE + HEADER] {
            assert_eq!(with_spoiled_byte(&file, meta as u64), expected);
        }
    }

    #[test]
    fn spoiled_databases_give_less_or_nothing_and_never_panic() {
        let (_keep, file) = database();
        let good = values(&file, &["v1", "lab"], KEYS);
        let spoiled: Vec<_> =
            (0..file.metadata().unwrap().len()).map(|at| with_spoiled_byte(&file, at)).collect();
        assert!(spoiled.iter().filter(|found| **found != good).count() > 100, "no byte mattered");
        assert_eq!(values(&file, &["v1", "lab"], KEYS), good);

        for content in [vec![], vec![0; 10], vec![0xff; 3 * PAGE]] {
            file.set_len(0).unwrap();
            file.write_all_at(&content, 0).unwrap();
            assert_eq!(values(&file, &["v1"], &[]), None);
        }
    }

    #[test]
    fn cycles_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        // A branch that is its own child.
        let mut pages = vec![meta_page(0, 2, 3, 1), meta_page(1, 2, 3, 1)];
        let mut element = 16_u32.to_ne_bytes().to_vec();
        element.extend(1_u32.to_ne_bytes());
        element.extend(2_u64.to_ne_bytes());
        element.extend(b"a");
        push(FLAG_BRANCH, 1, element, &mut pages);
        std::fs::write(&path, pages.concat()).unwrap();
        assert_eq!(values(&File::open(&path).unwrap(), &["v1"], &[]), None);
    }
}
