# Mounts of volumes, in ways that mount(8) of older hosts does not know. perl-base is on every Debian; it reaches the
# system calls that neither Node nor util-linux 2.38 offer. Nothing here is read from a file that a guest can write.
#
#   shift SOURCE TARGET ID_BASE ID_COUNT   the mount SOURCE once more at TARGET, with id 0 shown as ID_BASE and so on
#   plug PID SOURCE TARGET ID_BASE         the mount SOURCE in the mount namespace of PID, at TARGET; made where missing
#   plug-all FILE                          plug for each line of FILE: SOURCE, TARGET, ID_BASE, with tabs between; LXC's
#                                          hook start-host, which gives PID as LXC_PID and adds words of its own
#   unplug PID SOURCE                      takes all mounts of SOURCE's file system out of the namespace of PID
#
# Each may be repeated. The status is 0, 16 when something in the guest uses the mount, or another one with the reason on
# standard error.
use strict;
use warnings;
use Errno qw(EBUSY);

# The newer calls have the same numbers everywhere.
my ($open_tree, $move_mount, $mount_setattr) = (428, 429, 442);
my %numbers = (x86_64 => [272, 308, 166], aarch64 => [97, 268, 39]);
chomp(my $machine = `/bin/uname -m`);
my ($unshare, $setns, $umount2) = @{ $numbers{$machine} // die "no system call numbers for $machine\n" };

# An empty path means the descriptor itself; the call wants a variable.
my $itself = "";
my ($here, $new_user, $new_mount) = (-100, 0x10000000, 0x00020000);
my ($private, $idmap, $nodev) = (1 << 18, 0x00100000, 0x4);

sub clone_tree {
  my ($path) = @_;
  my $fd = syscall($open_tree, $here, "$path", 1 | 02000000);
  die "cannot open the mount $path: $!\n" if $fd < 0;
  return $fd;
}

# Private: what a guest mounts below never comes back to the host.
sub set_attributes {
  my ($tree, $set, $user_namespace) = @_;
  my $attributes = pack("QQQQ", $set | $nodev, 0, $private, $user_namespace);
  syscall($mount_setattr, $tree, $itself, 0x1000, $attributes, length $attributes) == 0
    or die "cannot set the mount's attributes: $!\n";
}

sub attach {
  my ($tree, $target) = @_;
  syscall($move_mount, $tree, $itself, $here, "$target", 4) == 0 or die "cannot mount at $target: $!\n";
}

# An open user namespace in which id 0 is $base outside. Its only process ends with this one's end of the pipe.
sub user_namespace {
  my ($base, $count) = @_;
  pipe(my $ready, my $say) and pipe(my $hold, my $keep) or die "pipe: $!\n";
  my $pid = fork() // die "fork: $!\n";
  if ($pid == 0) {
    close $keep;
    syscall($unshare, $new_user) == 0 or exit 1;
    syswrite $say, "x";
    sysread $hold, my $nothing, 1;
    exit 0;
  }
  close $say;
  sysread($ready, my $word, 1) or die "cannot make a user namespace\n";
  for my $kind ("uid", "gid") {
    open(my $map, ">", "/proc/$pid/${kind}_map") or die "${kind}_map: $!\n";
    syswrite($map, "0 $base $count\n") or die "${kind}_map: $!\n";
  }
  open(my $namespace, "<", "/proc/$pid/ns/user") or die "user namespace: $!\n";
  close $keep;
  waitpid $pid, 0;
  return $namespace;
}

sub enter {
  my ($pid) = @_;
  open(my $namespace, "<", "/proc/$pid/ns/mnt") or die "the guest is not running: $!\n";
  syscall($setns, fileno($namespace), $new_mount) == 0 or die "cannot enter the guest's mounts: $!\n";
}

# A directory that nothing is mounted on would show the host's own disk.
sub device_of {
  my ($source) = @_;
  my @own = stat $source or die "$source: $!\n";
  my @above = stat "$source/.." or die "$source: $!\n";
  die "the volume is not mounted at $source\n" if $own[0] == $above[0];
  my ($major, $minor) = (($own[0] >> 8) & 0xfff, ($own[0] & 0xff) | (($own[0] >> 12) & 0xfff00));
  return "$major:$minor";
}

# Where the file system is mounted in the namespace of a process, in the order of mounting.
sub places {
  my ($pid, $device) = @_;
  open(my $info, "<", "/proc/$pid/mountinfo") or return;
  my @found;
  while (my $line = <$info>) {
    my @fields = split / /, $line;
    next if $fields[2] ne $device;
    (my $point = $fields[4]) =~ s/\\([0-7]{3})/chr oct $1/ge;
    push @found, $point;
  }
  return @found;
}

# Below the guest's root: its symbolic links lead nowhere else.
sub make_directory {
  my ($target, $owner) = @_;
  my $path = "";
  for my $part (grep { $_ ne "" } split m{/}, $target) {
    $path .= "/$part";
    next if -d $path;
    mkdir $path, 0755 or die "cannot make the directory $path in the guest: $!\n";
    chown $owner, $owner, $path;
  }
}

sub plug {
  my ($pid, $source, $target, $base) = @_;
  return if places($pid, device_of($source));
  my $tree = clone_tree($source);
  set_attributes($tree, 0, 0);
  enter($pid);
  make_directory($target, $base + 0);
  attach($tree, $target);
}

sub unplug {
  my ($pid, $source) = @_;
  my @points = places($pid, device_of($source)) or return;
  enter($pid);
  for my $point (reverse @points) {
    next if syscall($umount2, "$point", 8) == 0;
    exit 16 if $! == EBUSY;
    die "cannot unmount $point in the guest: $!\n";
  }
}

# Each in a process of its own, because there is no way back from the guest's namespace.
sub plug_all {
  my ($pid, $file) = @_;
  open(my $list, "<", $file) or return;
  while (my $line = <$list>) {
    chomp $line;
    my ($source, $target, $base) = split /\t/, $line;
    my $child = fork() // die "fork: $!\n";
    if ($child == 0) {
      plug($pid, $source, $target, $base);
      exit 0;
    }
    waitpid $child, 0;
    die "cannot mount a volume at $target\n" if $? != 0;
  }
}

my $verb = shift @ARGV // "";
if ($verb eq "shift") {
  my ($source, $target, $base, $count) = @ARGV;
  my $tree = clone_tree($source);
  my $namespace = user_namespace($base + 0, $count + 0);
  set_attributes($tree, $idmap, fileno $namespace);
  attach($tree, $target);
} elsif ($verb eq "plug") {
  plug(@ARGV);
} elsif ($verb eq "plug-all") {
  plug_all($ENV{LXC_PID}, $ARGV[0]);
} elsif ($verb eq "unplug") {
  unplug(@ARGV);
} else {
  die "unknown verb $verb\n";
}
