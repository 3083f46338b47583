//! The processes of the machine, by (pid, start time), with the ancestry each had when it was made.
//!
//! Owns identity and ancestry; knows nothing of containers beyond the cgroup key a process had last. Forks say who made
//! whom, execs carry their ancestors from the kernel, so a lost record costs detail and never the whole chain.
//! Snapshots for the output are shared where a process is told of more than once.

mod recognise;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bounded::{Bounded, Index};
use crate::engine::SeedProcess;
use crate::event::{AncestorId, ExecEvent, ForkEvent, Task};
use crate::fact::{Ancestor, Process};
use crate::ids::{CgroupKey, ProcessKey};
use crate::image::Image;
use crate::namespaces::Namespaces;
use crate::text::{Comm, Texts};

/// Most processes in the table; the one used longest ago goes first.
pub(crate) const PROCESSES_MAX: usize = 131_072;
/// Most bytes of arguments and paths in the table.
const IMAGE_BYTES_MAX: usize = 24 << 20;
/// Most exited processes that are still known: a listener or connection is closed after the exit of its process.
const EXITED_MAX: usize = 1024;
/// Most ancestors of one process. Of more, those next to the farthest ones are left out.
const LINEAGE_MAX: usize = 16;
/// The farthest ancestors, which are kept: a container's first process, its shim and the service manager, or a session's.
const FARTHEST: usize = 4;

/// One process.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) parent: Option<ProcessKey>,
    pub(crate) image: Arc<Image>,
    /// The cgroup it had at the last record that named one.
    pub(crate) cgroup: CgroupKey,
    /// Where it was at its last exec.
    pub(crate) namespaces: Namespaces,
    /// It has run a program of a container's, or was forked by one that had: whatever it is called from now on, it is no
    /// runtime.
    pub(crate) contained: bool,
    /// It has left its container, or was forked by one that had.
    pub(crate) escaped: bool,
    /// Its exec is in the output, so its exit will be.
    pub(crate) reported: bool,
    comm: Arc<str>,
    uid: u32,
    ppid: Option<u32>,
    lineage: Option<Arc<[Ancestor]>>,
    /// Ancestry of what it forks: itself and its own ancestry. Built at the first fork, shared by all children.
    offspring: Option<Arc<[Ancestor]>>,
    snapshot: Option<Arc<Process>>,
    exited: bool,
}

impl Entry {
    fn new(task: &Task, comm: Arc<str>, image: Arc<Image>) -> Self {
        Self {
            parent: None,
            image,
            cgroup: CgroupKey { hierarchy: 0, id: 0 },
            namespaces: Namespaces::default(),
            contained: false,
            escaped: false,
            reported: false,
            comm,
            uid: task.uid,
            ppid: None,
            lineage: None,
            offspring: None,
            snapshot: None,
            exited: false,
        }
    }

    /// The user it runs as.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    fn as_ancestor(&self, pid: u32) -> Ancestor {
        Ancestor { pid, comm: self.comm.clone(), exe: self.image.exe.clone() }
    }

    /// Whether it has this name. One that is no text never has: it is made text anew, with the same result.
    fn is_named(&self, comm: &Comm) -> bool {
        self.comm.as_bytes() == comm.bytes()
    }

    /// Programs drop privileges: the user of the latest record holds. Their name does not change with it: a record
    /// bears that of the thread, and threads have names of their own.
    fn refresh(&mut self, task: &Task) {
        if self.uid != task.uid {
            self.uid = task.uid;
            self.snapshot = None;
        }
    }

    /// What the output says of it, kept for the next time.
    fn snapshot(&mut self, key: ProcessKey) -> Arc<Process> {
        let snapshot = self.told_once(key);
        self.snapshot.insert(snapshot).clone()
    }

    /// The same, not kept: most processes are told of when they execute something and when they exit, and never again, and
    /// what is kept of each would take a quarter of the table.
    fn told_once(&self, key: ProcessKey) -> Arc<Process> {
        self.snapshot.clone().unwrap_or_else(|| {
            Arc::new(Process {
                pid: key.pid,
                ppid: self.ppid,
                start_ns: key.start_ns,
                comm: self.comm.clone(),
                exe: self.image.exe.clone(),
                args: self.image.args.clone(),
                uid: Some(self.uid),
                program: self.image.program.clone(),
                ancestors: self.lineage.clone().unwrap_or_else(|| Arc::from([])),
                truncated: self.image.truncated,
            })
        })
    }
}

/// What an exec replaced.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) image: Arc<Image>,
    /// The cgroup of the record before, its own or the one it was forked in.
    pub(crate) cgroup: CgroupKey,
    /// Where it was.
    pub(crate) namespaces: Namespaces,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Processes {
    table: Bounded<ProcessKey, Entry>,
    /// When the latest process with each id was started.
    by_pid: Index<u32, u64>,
    exited: VecDeque<ProcessKey>,
    image_bytes: usize,
    tools: Vec<Arc<str>>,
    texts: Texts,
    /// What a process ran of which nothing is known.
    nothing: Arc<Image>,
}

impl Processes {
    /// An empty table; `tools` are the configured names that count as tools.
    pub(crate) fn new(capacity: usize, tools: Vec<Arc<str>>) -> Self {
        Self {
            table: Bounded::new(capacity),
            by_pid: Index::default(),
            exited: VecDeque::new(),
            image_bytes: 0,
            tools,
            texts: Texts::default(),
            nothing: Arc::default(),
        }
    }

    /// Replaces the configured names; programs that run already keep the role they had.
    pub(crate) fn set_tools(&mut self, tools: Vec<Arc<str>>) {
        self.tools = tools;
    }

    /// Enters a process that was there before the sensor. Its ancestry is filled in by [`Self::settle_seeds`].
    pub(crate) fn seed(&mut self, seed: SeedProcess) {
        let task = Task::from(seed.item.task);
        let comm = task.comm.shared(&mut self.texts);
        let mut image = match (&seed.exe, &seed.args) {
            (None, None) => Image::of_comm(&comm, &self.tools),
            _ => Image::new(seed.exe, seed.args, seed.truncated, &self.tools),
        };
        image.contents = seed.contents.unwrap_or_default();
        image.program.flags = seed.flags;
        let mut entry = Entry::new(&task, comm, Arc::new(image));
        entry.cgroup = seed.item.cgroup.into();
        entry.namespaces = seed.namespaces;
        if seed.item.parent_pid != 0 {
            entry.ppid = Some(seed.item.parent_pid);
            entry.parent =
                Some(ProcessKey { pid: seed.item.parent_pid, start_ns: seed.item.parent_start_ns });
        }
        self.insert(task.key, entry);
    }

    /// Fills in the ancestry of the processes that were there before, once all of them are entered.
    pub(crate) fn settle_seeds(&mut self) {
        let unsettled: Vec<_> =
            self.table.iter().filter(|(_, entry)| entry.lineage.is_none()).map(|(key, _)| *key).collect();
        for key in unsettled {
            let lineage = self.walk(key).skip(1).map(|(key, entry)| entry.as_ancestor(key.pid)).collect();
            if let Some(entry) = self.table.get_mut(&key) {
                entry.lineage = Some(lineage);
                entry.snapshot = None;
            }
        }
    }

    /// A process and its known ancestors, itself first.
    pub(crate) fn walk(&self, key: ProcessKey) -> impl Iterator<Item = (ProcessKey, &Entry)> {
        let first = self.table.peek(&key).map(|entry| (key, entry));
        std::iter::successors(first, |(_, entry)| {
            let parent = entry.parent?;
            self.table.peek(&parent).map(|entry| (parent, entry))
        })
        .take(LINEAGE_MAX + 1)
    }

    /// A process was made: it runs its parent's image under its parent's name until it executes another.
    pub(crate) fn fork(&mut self, event: &ForkEvent) {
        let child = &event.child;
        if self.table.contains(&child.key) {
            return self.learn_forker(event);
        }
        let mut entry = match self.table.get_mut(&event.parent) {
            Some(parent) => {
                let same_name = parent.is_named(&child.comm);
                let comm = if same_name { parent.comm.clone() } else { child.comm.shared(&mut self.texts) };
                let mut entry = Entry::new(child, comm, parent.image.clone());
                entry.cgroup = parent.cgroup;
                entry.namespaces = parent.namespaces;
                entry.contained = parent.contained;
                entry.escaped = parent.escaped;
                entry.lineage = Some(offspring(parent, event.parent.pid));
                entry
            }
            None => {
                let comm = child.comm.shared(&mut self.texts);
                let image = Arc::new(Image::of_comm(&comm, &self.tools));
                let parent = Ancestor { pid: event.parent.pid, comm: comm.clone(), exe: None };
                let mut entry = Entry::new(child, comm, image);
                entry.lineage = Some(Arc::from([parent]));
                entry
            }
        };
        entry.parent = Some(event.parent);
        entry.ppid = Some(event.parent.pid);
        self.enter(child.key, entry);
    }

    /// The fork of a process that is known already: what it did since stays, only its ancestry is filled in.
    fn learn_forker(&mut self, event: &ForkEvent) {
        let lineage = self.table.get_mut(&event.parent).map(|parent| offspring(parent, event.parent.pid));
        let Some(entry) = self.table.get_mut(&event.child.key) else { return };
        entry.parent = Some(event.parent);
        entry.ppid = entry.ppid.or(Some(event.parent.pid));
        if let Some(lineage) = lineage
            && entry.lineage.as_ref().is_none_or(|known| known.len() < lineage.len())
        {
            entry.lineage = Some(lineage);
            entry.offspring = None;
        }
        entry.snapshot = None;
    }

    /// A process runs another program, whose contents are this client's if any. Returns its entry and what it ran before.
    pub(crate) fn exec(&mut self, event: &ExecEvent, client: Option<&Arc<str>>) -> (&mut Entry, Before) {
        let key = event.task.key;
        let exe = (!event.filename().is_empty()).then(|| self.texts.share(event.filename()));
        let (args, too_many) = event.args().map(|args| self.texts.split_args(args)).unzip();
        let truncated = event.truncated() || too_many == Some(true);
        let mut image = Image::new(exe, args, truncated, &self.tools);
        if let Some(exe) = self.exe_of_itself(key, event.filename()) {
            image.set_exe(exe);
        }
        image.set_file(event, client);
        let image = Arc::new(image);
        // Looking it up makes it the newest, so that no shrinking takes it.
        let known = self.table.get_mut(&key).map(|entry| entry.lineage.clone());
        let is_new = known.is_none();
        // The forker's ancestry outlives re-parenting; the kernel's list covers for lost fork records.
        let lineage = match known.flatten() {
            Some(lineage) if lineage.len() >= event.ancestors().len() => lineage,
            _ => self.lineage_from_kernel(event.ancestors()),
        };
        if is_new {
            let comm = event.task.comm.shared(&mut self.texts);
            self.enter(key, Entry::new(&event.task, comm, self.nothing.clone()));
        }
        self.image_bytes += image.bytes;
        self.shrink();
        let entry =
            self.table.get_mut(&key).expect("invariant: entered above, and the newest is never evicted");
        let before = Before {
            image: std::mem::replace(&mut entry.image, image),
            cgroup: entry.cgroup,
            namespaces: entry.namespaces,
        };
        self.image_bytes -= before.image.bytes_freed();
        entry.refresh(&event.task);
        if !entry.is_named(&event.task.comm) {
            entry.comm = event.task.comm.shared(&mut self.texts);
        }
        entry.cgroup = event.cgroup;
        entry.namespaces = event.namespaces;
        entry.lineage = Some(lineage);
        if let Some(parent) = event.ancestors().first() {
            entry.ppid = Some(parent.key.pid);
            entry.parent = entry.parent.or(Some(parent.key));
        }
        entry.snapshot = None;
        entry.offspring = None;
        (entry, before)
    }

    /// The file of a process that executes itself anew, which says nothing but that.
    fn exe_of_itself(&self, key: ProcessKey, filename: &[u8]) -> Option<Arc<str>> {
        if !matches!(filename, b"/proc/self/exe" | b"/proc/thread-self/exe") {
            return None;
        }
        let exe = self.table.peek(&key)?.image.exe.as_ref()?;
        exe.starts_with('/').then(|| exe.clone())
    }

    /// Builds an ancestry from the kernel's list, longer where an ancestor on it is known with its own.
    fn lineage_from_kernel(&mut self, ancestors: &[AncestorId]) -> Arc<[Ancestor]> {
        let mut lineage = Vec::with_capacity(LINEAGE_MAX);
        for ancestor in ancestors {
            let known = self.table.peek(&ancestor.key);
            lineage.push(Ancestor {
                pid: ancestor.key.pid,
                comm: ancestor.comm.shared(&mut self.texts),
                exe: known.and_then(|entry| entry.image.exe.clone()),
            });
            if let Some(own) = known.and_then(|entry| entry.lineage.as_ref()) {
                let (near, far) = cut(own, LINEAGE_MAX - lineage.len());
                lineage.extend(near.iter().chain(far).cloned());
                break;
            }
        }
        lineage.into()
    }

    /// A process is gone. It stays known for a while, see [`EXITED_MAX`].
    pub(crate) fn exit(&mut self, key: ProcessKey) {
        let Some(entry) = self.table.get_mut(&key) else { return };
        if std::mem::replace(&mut entry.exited, true) {
            return;
        }
        self.exited.push_back(key);
        if self.exited.len() > EXITED_MAX
            && let Some(key) = self.exited.pop_front()
        {
            self.remove(key);
        }
    }

    /// What the output says of a task, from the table as far as it is there, else from the record alone.
    pub(crate) fn describe(&mut self, task: &Task) -> Arc<Process> {
        self.ensure(task);
        let entry =
            self.table.get_mut(&task.key).expect("invariant: entered above, and the newest is never evicted");
        entry.refresh(task);
        entry.snapshot(task.key)
    }

    /// What the output says of a process that is told of by that: its exit will be, too.
    pub(crate) fn report(&mut self, key: ProcessKey) -> Option<Arc<Process>> {
        let entry = self.table.get_mut(&key)?;
        entry.reported = true;
        Some(entry.told_once(key))
    }

    /// What the output says of a process that may be unknown.
    pub(crate) fn snapshot(&mut self, key: ProcessKey) -> Option<Arc<Process>> {
        self.table.get_mut(&key).map(|entry| entry.snapshot(key))
    }

    /// The process that was entered last under a process id.
    pub(crate) fn latest(&self, pid: u32) -> Option<ProcessKey> {
        self.by_pid.get(&pid).map(|start_ns| ProcessKey { pid, start_ns: *start_ns })
    }

    /// An entry, without counting as a use.
    pub(crate) fn peek(&self, key: ProcessKey) -> Option<&Entry> {
        self.table.peek(&key)
    }

    /// An entry to change.
    pub(crate) fn get_mut(&mut self, key: ProcessKey) -> Option<&mut Entry> {
        self.table.get_mut(&key)
    }

    /// Every process, for the questions of start-up.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ProcessKey, &Entry)> {
        self.table.iter()
    }

    /// Number of processes.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Processes evicted since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    /// Enters a task that no other record told of, by its name alone.
    pub(crate) fn ensure(&mut self, task: &Task) {
        // Looking it up makes it the newest, so that no shrinking takes it before the caller is done with it.
        if self.table.get_mut(&task.key).is_none() {
            let comm = task.comm.shared(&mut self.texts);
            let image = Arc::new(Image::of_comm(&comm, &self.tools));
            self.enter(task.key, Entry::new(task, comm, image));
        }
    }

    fn insert(&mut self, key: ProcessKey, entry: Entry) {
        self.remove(key);
        self.enter(key, entry);
    }

    /// Enters a process that is not there.
    fn enter(&mut self, key: ProcessKey, entry: Entry) {
        // A forked process shares the image of its parent, which is counted already.
        if Arc::strong_count(&entry.image) == 1 {
            self.image_bytes += entry.image.bytes;
        }
        self.by_pid.insert(key.pid, key.start_ns);
        if let Some((key, evicted)) = self.table.insert(key, entry) {
            self.image_bytes -= evicted.image.bytes_freed();
            self.forget_pid(key);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.image_bytes > IMAGE_BYTES_MAX && self.table.len() > 1 {
            let Some((key, evicted)) = self.table.evict_oldest() else { break };
            self.image_bytes -= evicted.image.bytes_freed();
            self.forget_pid(key);
        }
    }

    fn remove(&mut self, key: ProcessKey) {
        if let Some(entry) = self.table.remove(&key) {
            self.image_bytes -= entry.image.bytes_freed();
            self.forget_pid(key);
        }
    }

    fn forget_pid(&mut self, key: ProcessKey) {
        if self.by_pid.get(&key.pid) == Some(&key.start_ns) {
            self.by_pid.remove(&key.pid);
        }
    }
}

/// The ancestry of what this process forks.
fn offspring(parent: &mut Entry, pid: u32) -> Arc<[Ancestor]> {
    if let Some(offspring) = &parent.offspring {
        return offspring.clone();
    }
    let own = parent.lineage.as_deref().unwrap_or_default();
    let (near, far) = cut(own, LINEAGE_MAX - 1);
    let lineage = std::iter::once(parent.as_ancestor(pid)).chain(near.iter().chain(far).cloned()).collect();
    parent.offspring.insert(lineage).clone()
}

/// The nearest and the farthest of too many ancestors, at most so many in all.
fn cut(lineage: &[Ancestor], max: usize) -> (&[Ancestor], &[Ancestor]) {
    if lineage.len() <= max {
        return (lineage, &[]);
    }
    let far = FARTHEST.min(max);
    (&lineage[..max - far], &lineage[lineage.len() - far..])
}

#[cfg(test)]
mod tests;
