# Opens a file, for reading alone or for writing as well, and gives the descriptor to a running QEMU: add-fd on its monitor, with the
# descriptor as ancillary data (SCM_RIGHTS), which Node cannot send. Arguments: the monitor's socket, the file, the text
# that the descriptor set is found by (opaque), and "read" or "write".
use strict;
use warnings;
use Errno qw(EAGAIN);
use Fcntl qw(O_RDONLY O_RDWR);
use Socket qw(AF_UNIX SOCK_STREAM SOL_SOCKET pack_sockaddr_un);

my %sendmsg = (x86_64 => 46, aarch64 => 211);
my ($socket_path, $path, $opaque, $mode) = @ARGV;
chomp(my $machine = `/bin/uname -m`);
my $number = $sendmsg{$machine} // die "no system call numbers for $machine\n";

sysopen(my $file, $path, $mode eq "read" ? O_RDONLY : O_RDWR) or die "$path: $!\n";
socket(my $monitor, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
# QEMU lets hardly anybody wait in line. The caller has a time limit.
until (connect $monitor, pack_sockaddr_un($socket_path)) {
  die "$socket_path: $!\n" if $! != EAGAIN;
  select undef, undef, undef, 0.02;
}

my $unread = "";
sub line {
  while ($unread !~ /\n/) {
    sysread($monitor, $unread, 65536, length $unread) or die "QEMU closed the connection\n";
  }
  $unread =~ s/^([^\n]*)\n//;
  return $1;
}

# Events come in between.
sub answer {
  while (1) {
    my $line = line();
    return if $line =~ /"return"/;
    die "$line\n" if $line =~ /"error"/;
  }
}

line() =~ /"QMP"/ or die "no greeting\n";
syswrite $monitor, qq({"execute":"qmp_capabilities"}\n);
answer();
my $request = qq({"execute":"add-fd","arguments":{"opaque":"$opaque"}}\n);
my $vector = pack("P", $request) . pack("Q", length $request);
my $control = pack("Q l l l x4", 20, SOL_SOCKET, 1, fileno $file);
my $message = pack("Q L x4", 0, 0) . pack("P", $vector) . pack("Q", 1) . pack("P", $control)
  . pack("Q", length $control) . pack("l x4", 0);
syscall($number, fileno $monitor, $message, 0) == length $request or die "sendmsg: $!\n";
answer();
