# Tells which blocks of block devices were written since it said "ready": by the kernel's own record of completed requests
# (the trace point block_rq_complete), in a trace instance of its own. Arguments: the size of a block in bytes, then
# MAJOR:MINOR of each device. To be run in a mount namespace of its own, where it mounts tracefs if nobody did.
#
# Each line on standard input asks once; the answer is a line "MAJOR:MINOR FIRST COUNT" for each run of blocks that was
# written since the last answer, then "done", or "lost" when the kernel had more to record than there was room for. It ends
# with its input.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use Fcntl qw(O_RDONLY O_NONBLOCK);
use Socket;

my ($block_bytes, @devices) = @ARGV;
my $top = "/sys/kernel/tracing";
my %sectors_of;    # device => { block => 1 }
my $lost = 0;

sub put {
  my ($path, $text) = @_;
  open(my $file, ">", $path) or die "$path: $!\n";
  syswrite($file, $text) // die "$path: $!\n";
  close $file or die "$path: $!\n";
}

if (!-d "$top/instances") {
  system("mount", "-t", "tracefs", "tracefs", $top) == 0 or die "no tracefs\n";
}
# Of those that were killed.
for my $old (glob "$top/instances/strata-*") {
  my ($pid) = $old =~ /-(\d+)$/;
  rmdir $old if defined $pid && !-d "/proc/$pid";
}
my $instance = "$top/instances/strata-$$";
mkdir $instance or die "$instance: $!\n";
my $event = "$instance/events/block/block_rq_complete";
my $pipe;
END {
  close $pipe if $pipe;
  if ($instance && -d $instance) {
    eval { put("$event/enable", "0\n") };
    rmdir $instance;
  }
}
put("$event/filter", join(" || ", map { my ($major, $minor) = split /:/; "dev == " . ($major << 20 | $minor) } @devices) . "\n");
put("$instance/buffer_size_kb", "1024\n");
sysopen($pipe, "$instance/trace_pipe", O_RDONLY | O_NONBLOCK) or die "trace_pipe: $!\n";
put("$event/enable", "1\n");
$| = 1;
print "ready\n";

my $rest = "";
sub take {
  while (1) {
    my $got = sysread($pipe, $rest, 1 << 16, length $rest);
    if (!defined $got) {
      next if $! == EINTR;
      last if $! == EAGAIN;
      die "trace_pipe: $!\n";
    }
    last if $got == 0;
    while ($rest =~ s/^([^\n]*)\n//) {
      my $line = $1;
      $lost = 1 if $line =~ /LOST/;
      next unless $line =~ /block_rq_complete: (\d+),(\d+) F?([A-Z])\S* \(.*?\) (\d+) \+ (\d+)/;
      my ($device, $verb, $sector, $count) = ("$1:$2", $3, $4, $5);
      next if $verb eq "R" || $count == 0;
      my $last = int((($sector + $count) * 512 - 1) / $block_bytes);
      $sectors_of{$device}{$_} = 1 for int($sector * 512 / $block_bytes) .. $last;
    }
  }
}

sub overrun {
  for my $path (glob "$instance/per_cpu/cpu*/stats") {
    open(my $file, "<", $path) or die "$path: $!\n";
    while (<$file>) {
      return 1 if /^(?:overrun|commit overrun|dropped events): ([1-9]\d*)/;
    }
  }
  return 0;
}

while (1) {
  my $wanted = "";
  vec($wanted, fileno(STDIN), 1) = 1;
  select($wanted, undef, undef, 0.1);
  take();
  next unless vec($wanted, fileno(STDIN), 1);
  my $got = sysread(STDIN, my $asked, 64);
  last if !$got;
  take();
  $lost ||= overrun();
  if ($lost) {
    print "lost\n";
    next;
  }
  for my $device (sort keys %sectors_of) {
    my ($first, $count);
    for my $block (sort { $a <=> $b } keys %{ $sectors_of{$device} }) {
      if (defined $first && $block == $first + $count) { $count++; next }
      print "$device $first $count\n" if defined $first;
      ($first, $count) = ($block, 1);
    }
    print "$device $first $count\n" if defined $first;
  }
  %sectors_of = ();
  print "done\n";
}
