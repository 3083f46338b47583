//! Byte offsets of kernel structure members, resolved from the running kernel's BTF at load.
//!
//! The probes have them as immediate operands, see [`crate::placeholder`].

/// Value of a member that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident = $path:literal;)*) => {
        /// Offsets the probes read through; one `u32` per member, [`ABSENT`] when the kernel has no such member.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Offsets {
            $($(#[$doc])* #[doc = concat!("Source: `", $path, "`.")] pub $field: u32,)*
        }

        impl Offsets {
            /// Nothing resolved.
            pub const NONE: Self = Self { $($field: ABSENT,)* };
            /// Field name and what to resolve: `struct.member[.member…]`, `enum:NAME:VALUE`, `sizeof:TYPE`,
            /// `args:TYPEDEF` (parameters of a function pointer type); alternatives after `|`.
            pub const TABLE: &'static [(&'static str, &'static str)] = &[$((stringify!($field), $path),)*];

            /// The offsets as [`crate::placeholder`] numbers them.
            #[must_use]
            pub const fn words(&self) -> [u32; crate::placeholder::OFFSETS_LEN] {
                [$(self.$field,)*]
            }

            /// Builds the table by resolving every path in [`Self::TABLE`] order.
            pub fn resolve(mut resolve: impl FnMut(&'static str, &'static str) -> u32) -> Self {
                Self { $($field: resolve(stringify!($field), $path),)* }
            }
        }
    };
}

offsets! {
    /// Address family.
    sk_family = "sock_common.skc_family";
    /// Remote port, network order.
    sk_dport = "sock_common.skc_dport";
    /// Local port, host order; 0 once the port is released.
    sk_num = "sock_common.skc_num";
    /// Remote IPv4 address.
    sk_daddr = "sock_common.skc_daddr";
    /// Local IPv4 address.
    sk_rcv_saddr = "sock_common.skc_rcv_saddr";
    /// Remote IPv6 address.
    sk_v6_daddr = "sock_common.skc_v6_daddr";
    /// Local IPv6 address.
    sk_v6_rcv_saddr = "sock_common.skc_v6_rcv_saddr";
    /// Socket state.
    sk_state = "sock_common.skc_state";
    /// Network namespace pointer.
    sk_net = "sock_common.skc_net.net";
    /// Local port, network order; survives the release of the port.
    inet_sport = "inet_sock.inet_sport";
    /// Protocol.
    sk_protocol = "sock.sk_protocol";
    /// Pending error.
    sk_err = "sock.sk_err";
    /// Socket flags (`enum sock_flags` bits).
    sk_flags = "sock_common.skc_flags";
    /// Number of a socket that no other has; 0 until somebody asks for it.
    sk_cookie = "sock_common.skc_cookie.counter";
    /// `struct socket` of a socket; null until a connection that was accepted by the kernel is taken by a program.
    sk_socket = "sock.sk_socket";
    /// Cgroup pointer.
    sk_cgroup = "sock.sk_cgrp_data.cgroup";
    /// Before 5.15: the cgroup pointer with flags in its low bits.
    sk_cgroup_tagged = "sock.sk_cgrp_data.val";
    /// What all sockets of one local port have in common.
    icsk_bucket = "inet_connection_sock.icsk_bind_hash";
    /// Whether they may share it; -1 of a port that the kernel chose for one that connects.
    bucket_reuse = "inet_bind_bucket.fastreuse";
    /// Payload bytes received.
    tcp_bytes_received = "tcp_sock.bytes_received";
    /// Number of the next byte that is expected in order.
    tcp_rcv_nxt = "tcp_sock.rcv_nxt";
    /// Number of the next byte to be sent for the first time.
    tcp_snd_nxt = "tcp_sock.snd_nxt";
    /// Number of the first byte that was sent and not acknowledged.
    tcp_snd_una = "tcp_sock.snd_una";
    /// Payload bytes that the peer has acknowledged.
    tcp_bytes_acked = "tcp_sock.bytes_acked";
    /// Payload bytes sent, with retransmissions.
    tcp_bytes_sent = "tcp_sock.bytes_sent";
    /// Payload bytes sent again.
    tcp_bytes_retrans = "tcp_sock.bytes_retrans";
    /// Inode of a network namespace.
    net_inum = "net.ns.inum";
    /// kernfs node of a cgroup.
    cgroup_kn = "cgroup.kn";
    /// Root of the hierarchy of a cgroup.
    cgroup_root = "cgroup.root";
    /// Id of a hierarchy.
    root_hierarchy_id = "cgroup_root.hierarchy_id";
    /// Id of a kernfs node.
    kn_id = "kernfs_node.id";
    /// Name of a kernfs node.
    kn_name = "kernfs_node.name";
    /// Cgroups of a task.
    task_cgroups = "task_struct.cgroups";
    /// Cgroup in the version 2 hierarchy.
    css_set_dfl = "css_set.dfl_cgrp";
    /// Per-controller states.
    css_set_subsys = "css_set.subsys";
    /// Cgroup of a controller state.
    css_cgroup = "cgroup_subsys_state.cgroup";
    /// Thread group id.
    task_tgid = "task_struct.tgid";
    /// Thread id.
    task_pid = "task_struct.pid";
    /// Thread group leader.
    task_leader = "task_struct.group_leader";
    /// Parent.
    task_real_parent = "task_struct.real_parent";
    /// Start time, boot clock.
    task_start = "task_struct.start_boottime|task_struct.real_start_time";
    /// Name.
    task_comm = "task_struct.comm";
    /// Credentials.
    task_cred = "task_struct.cred";
    /// Memory.
    task_mm = "task_struct.mm";
    /// State shared by the threads of a process.
    task_signal = "task_struct.signal";
    /// Threads that have not begun to exit.
    signal_live = "signal_struct.live.counter";
    /// Wait status.
    task_exit_code = "task_struct.exit_code";
    /// Namespaces.
    task_nsproxy = "task_struct.nsproxy";
    /// Pid structure.
    task_thread_pid = "task_struct.thread_pid";
    /// Real user id.
    cred_uid = "cred.uid.val";
    /// Start of the arguments.
    mm_arg_start = "mm_struct.arg_start";
    /// End of the arguments.
    mm_arg_end = "mm_struct.arg_end";
    /// Mount namespace.
    nsproxy_mnt = "nsproxy.mnt_ns";
    /// Inode of a mount namespace.
    mnt_inum = "mnt_namespace.ns.inum";
    /// Depth of a pid.
    pid_level = "pid.level";
    /// Numbers of a pid, one `struct upid` per level.
    pid_numbers = "pid.numbers";
    /// Number in a pid namespace.
    upid_nr = "upid.nr";
    /// Pid namespace of a number.
    upid_ns = "upid.ns";
    /// Inode of a pid namespace.
    pidns_inum = "pid_namespace.ns.inum";
    /// Size of `struct upid`.
    upid_size = "sizeof:upid";
    /// File name given to exec.
    bprm_filename = "linux_binprm.filename";
    /// File name of the interpreter; the same pointer for a program that has none.
    bprm_interp = "linux_binprm.interp";
    /// File that is loaded.
    bprm_file = "linux_binprm.file";
    /// Open files.
    task_files = "task_struct.files";
    /// Table of these.
    files_table = "files_struct.fdt";
    /// Entries of such a table.
    table_files = "fdtable.fd";
    /// Number of its entries.
    table_len = "fdtable.max_fds";
    /// Root and working directory.
    task_fs = "task_struct.fs";
    /// Directory entry of the root directory.
    fs_root = "fs_struct.root.dentry";
    /// Inode of a file.
    file_inode = "file.f_inode";
    /// Superblock of an inode.
    inode_sb = "inode.i_sb";
    /// Magic of a superblock.
    sb_magic = "super_block.s_magic";
    /// Private data of a file.
    file_private = "file.private_data";
    /// Socket of a `struct socket`.
    socket_sk = "socket.sk";
    /// Mode of a file; bit 0 says that it is open for reading.
    file_mode = "file.f_mode";
    /// Path of a file: mount and directory entry.
    file_path = "file.f_path|file.__f_path";
    /// Directory entry of a file.
    file_dentry = "file.f_path.dentry|file.__f_path.dentry";
    /// Directory entry of the directory that an entry is in.
    dentry_parent = "dentry.d_parent";
    /// Inode of a directory entry.
    dentry_inode = "dentry.d_inode";
    /// Name of a directory entry.
    dentry_name = "dentry.d_name.name";
    /// Number of names of an inode.
    inode_links = "inode.i_nlink";
    /// Time of the last change of an inode: seconds.
    inode_ctime_sec = "inode.i_ctime_sec|inode.__i_ctime.tv_sec|inode.i_ctime.tv_sec";
    /// And nanoseconds, with flags of the kernel in the upper bits.
    inode_ctime_nsec = "inode.i_ctime_nsec|inode.__i_ctime.tv_nsec|inode.i_ctime.tv_nsec";
    /// Number of an inode.
    inode_number = "inode.i_ino";
    /// Number of the device of a superblock.
    sb_device = "super_block.s_dev";
    /// Directory entry that a unix socket is bound to; null for one without a path.
    unix_dentry = "unix_sock.path.dentry";
    /// The other end of a unix socket.
    unix_peer = "unix_sock.peer";
    /// Queue of what a socket has received: itself the beginning and the end of a ring.
    sk_receive_queue = "sock.sk_receive_queue";
    /// The last one in that queue.
    sk_receive_last = "sock.sk_receive_queue.prev";
    /// Bytes of a buffer.
    skb_len = "sk_buff.len";
    /// Of these, how many do not lie at `data`.
    skb_data_len = "sk_buff.data_len";
    /// The first bytes.
    skb_data = "sk_buff.data";
    /// Socket of a buffer; in the queue of a listening unix socket, that of the new connection.
    skb_sk = "sk_buff.sk";
    /// Number of the system call that a task is in (x86).
    regs_call = "pt_regs.orig_ax";
    /// Its second argument (x86).
    regs_second = "pt_regs.si";
    /// Its third argument (x86).
    regs_third = "pt_regs.dx";
    /// Index of the pids controller in `css_set.subsys`.
    pids_subsys = "enum:cgroup_subsys_id:pids_cgrp_id";
    /// Number of the helper that gives the current task as a typed pointer (5.11).
    helper_current_task_btf = "enum:bpf_func_id:BPF_FUNC_get_current_task_btf";
    /// Number of the helper that gives the registers of a task as it entered the kernel (5.15).
    helper_task_pt_regs = "enum:bpf_func_id:BPF_FUNC_task_pt_regs";
    /// Number of a helper that came with the one that gives a socket its number, in tracing programs (5.12).
    helper_socket_cookie = "enum:bpf_func_id:BPF_FUNC_check_mtu";
    /// Arguments of the exit tracepoint, its hidden first one included; from 6.16 on the last one says `group_dead`.
    exit_args = "args:btf_trace_sched_process_exit";
    /// Bit of `sk_flags` that is set once the peer has sent its FIN.
    sock_done_bit = "enum:sock_flags:SOCK_DONE";
}
