package AI::H2;

# Copyright (C) nginx AI gateway authors

# An HTTP/2 client for what curl does not do: a window that stays shut, the
# reset of one stream among others.
#
#     my $c = AI::H2->new(port => $port, window => 0);
#     my $s = $c->request('/v1/chat/completions', { ... }, name => value);
#     $c->wait(sub { $s->{ended} }, $seconds);
#     $s->{status}; $s->{body}; $s->{reset} (a code); $c->{goaway};
#     $c->rst($s);  $c->close;
#
# window: 1 (default) gives back what was read, 0 does not.  Header fields of
# answers are not decoded but for the status.  Bodies of requests are small.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Time::HiRes qw(time);

my %static = (0x88 => 200, 0x89 => 204, 0x8a => 206, 0x8b => 304,
              0x8c => 400, 0x8d => 404, 0x8e => 500);

sub new {
    my ($class, %arg) = @_;
    my $self = bless { window => 1, in => '', next => 1, streams => {},
                       %arg }, $class;

    $self->{fh} = IO::Socket::INET->new(
        PeerAddr => '127.0.0.1', PeerPort => $arg{port}, Proto => 'tcp'
    ) or die "connect: $!";

    $self->{fh}->autoflush(1);
    $self->write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame(4, 0, 0, ''));

    return $self;
}

sub frame {
    my ($type, $flags, $id, $data) = @_;

    return substr(pack('N', length $data), 1)
           . pack('CCN', $type, $flags, $id) . $data;
}

# a literal without indexing

sub field {
    my ($name, $value) = @_;
    return "\0" . text($name) . text($value);
}

sub text {
    my ($text) = @_;
    my $len = length $text;

    return chr($len) . $text if $len < 127;

    my $size = chr 127;

    for ($len -= 127; $len >= 128; $len >>= 7) {
        $size .= chr($len % 128 + 128);
    }

    return $size . chr($len) . $text;
}

sub write {
    my ($self, $data) = @_;

    local $SIG{PIPE} = 'IGNORE';
    syswrite $self->{fh}, $data;
}

sub request {
    my ($self, $path, $body, @headers) = @_;
    my $id = $self->{next};

    $body = JSON::PP->new->utf8->canonical->encode($body) if ref $body;
    $self->{next} += 2;

    my $fields = field(':method' => 'POST') . field(':scheme' => 'http')
                 . field(':path' => $path) . field(':authority' => 'localhost')
                 . field('content-type' => 'application/json');

    while (my ($name, $value) = splice @headers, 0, 2) {
        $fields .= field($name => $value);
    }

    $self->write(frame(1, 4, $id, $fields) . frame(0, 1, $id, $body));

    return $self->{streams}{$id} = { id => $id, body => '' };
}

sub rst {
    my ($self, $s) = @_;
    $self->write(frame(3, 0, $s->{id}, pack 'N', 8));
}

sub close {
    my ($self) = @_;
    close $self->{fh};
}

# reads until $check is true; its value

sub wait {
    my ($self, $check, $seconds) = @_;
    my $end = time() + ($seconds // 15);

    while (1) {
        my $v = $check->();
        my $left = $end - time();

        return $v if $v || $left <= 0 || $self->{eof};
        next if !IO::Select->new($self->{fh})->can_read($left);

        my $n = sysread $self->{fh}, $self->{in}, 65536, length $self->{in};
        $self->{eof} = 1 if !$n;
        $self->parse;
    }
}

sub parse {
    my ($self) = @_;

    while (length $self->{in} >= 9) {
        my ($high, $low, $type, $flags, $id) = unpack 'CnCCN', $self->{in};
        my $size = $high << 16 | $low;

        last if length $self->{in} < 9 + $size;

        my $data = substr $self->{in}, 9, $size;
        substr $self->{in}, 0, 9 + $size, '';

        my $s = $self->{streams}{$id} // {};

        if ($type == 0) {
            $s->{body} .= $data;

            if ($self->{window} && $size) {
                $self->write(join '', map { frame(8, 0, $_, pack 'N', $size) }
                                      0, $id);
            }

        } elsif ($type == 1) {
            # an update of the table's size may come first
            $data =~ s/^[\x20-\x3f]//;
            $s->{status} //= $static{ ord $data };
            $s->{status} //= $1 if $data =~ /^[\x08\x18\x48]\x03(\d{3})/;

        } elsif ($type == 3) {
            $s->{reset} = unpack 'N', $data;

        } elsif ($type == 4 && !($flags & 1)) {
            $self->write(frame(4, 1, 0, ''));

        } elsif ($type == 7) {
            $self->{goaway} = 1;
        }

        $s->{ended} = 1 if $type <= 1 && $flags & 1;
    }
}

1;
