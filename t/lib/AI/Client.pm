package AI::Client;

# Copyright (C) nginx AI gateway authors

# An HTTP/1.1 client that shows what happens on the wire and when:
#
#     my $c = AI::Client->new(port => $port);
#
#     my $r = $c->post('/v1/chat/completions', { model => ... });
#     $r->{status}; $r->{headers}{'x-request-id'}; $r->{body}; $r->json;
#
#     my $s = $c->open('/v1/chat/completions', { stream => ... });
#     while (my $e = $s->event) { $e->{data}; $e->{time} }
#     $s->abort;  $s->reset;  $s->drain;
#
# A request that gets no answer has status 0 and {error}.

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EINPROGRESS);
use IO::Socket::INET;
use JSON::PP;
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

our $timeout = $ENV{TEST_AI_VALGRIND} ? 60 : 15;

# port, host, headers (a list of name => value for all requests), timeout,
# ssl (true, or a hash of options of IO::Socket::SSL), rcvbuf (bytes)

sub new {
    my ($class, %arg) = @_;

    return bless {
        host => '127.0.0.1', headers => [], timeout => $timeout, %arg
    }, $class;
}

sub get {
    my ($self, $path, %opt) = @_;
    return $self->request('GET', $path, undef, %opt);
}

sub post {
    my ($self, $path, $body, %opt) = @_;
    return $self->request('POST', $path, $body, %opt);
}

# the whole answer

sub request {
    my ($self, $method, $path, $body, %opt) = @_;

    my $s = $self->open($path, $body, method => $method, %opt);
    $s->finish;

    return $s;
}

# sends a request and returns its stream at once.  Options: method, headers,
# timeout, http ("1.0"), chunked (sends the body so), raw (sends these bytes
# instead of a request), send (a number: only so many bytes of the body)

sub open {
    my ($self, $path, $body, %opt) = @_;

    my $s = bless {
        %$self, %opt,
        status => 0, headers => {}, raw_headers => [], body => '',
        in => '', sse => '', events => [], start => time(),
        method => $opt{method} // 'POST',
    }, 'AI::Client::Stream';

    my $raw = $opt{raw} // $self->build($path, $body, %opt);

    $s->connect or return $s;
    $s->write($raw);

    return $s;
}

sub build {
    my ($self, $path, $body, %opt) = @_;

    my @headers = (@{ $self->{headers} }, @{ $opt{headers} // [] });
    my %has;

    for (my $i = 0; $i < @headers; $i += 2) {
        $has{lc $headers[$i]} = 1;
    }

    if (ref $body) {
        $body = JSON::PP->new->utf8->canonical->encode($body);
    }

    unshift @headers, Host => $opt{host_header} // "localhost:$self->{port}"
        if !$has{host};

    if (defined $body) {
        push @headers, 'Content-Type' => 'application/json'
            if !$has{'content-type'};

        if ($opt{chunked}) {
            push @headers, 'Transfer-Encoding' => 'chunked';
            my @parts = unpack '(a1000)*', $body;
            $body = join('', map { sprintf("%x\r\n%s\r\n", length, $_) }
                             @parts) . "0\r\n\r\n";

        } elsif (!$has{'content-length'}) {
            push @headers, 'Content-Length' => length $body;
        }
    }

    my $raw = ($opt{method} // 'POST') . " $path HTTP/"
              . ($opt{http} // '1.1') . "\r\n";

    while (@headers) {
        my ($name, $value) = splice @headers, 0, 2;
        $raw .= "$name: $value\r\n";
    }

    $raw .= "\r\n";

    if (defined $body) {
        $raw .= defined $opt{send} ? substr($body, 0, $opt{send}) : $body;
    }

    return $raw;
}

# HTTP/2 without TLS through curl, which writes as it receives

sub h2 {
    my ($self, $path, $body, %opt) = @_;

    return $self->curl([ '--http2-prior-knowledge' ], 'http', $path, $body,
                       %opt);
}

# over QUIC; any certificate will do

sub h3 {
    my ($self, $path, $body, %opt) = @_;

    return $self->curl([ '--http3-only', '-k' ], 'https', $path, $body, %opt);
}

sub curl {
    my ($self, $how, $scheme, $path, $body, %opt) = @_;
    my @cmd = ('curl', '-sS', '-N', '-i', @$how,
               '--max-time', $opt{timeout} // $self->{timeout});
    my @headers = (@{ $self->{headers} }, @{ $opt{headers} // [] });

    while (@headers) {
        my ($name, $value) = splice @headers, 0, 2;
        push @cmd, '-H', "$name: $value";
    }

    if (defined $body) {
        $body = JSON::PP->new->utf8->canonical->encode($body) if ref $body;
        push @cmd, '-H', 'Content-Type: application/json',
             '--data-binary', $body;
    }

    push @cmd, @{ $opt{curl} // [] },
         "$scheme://$self->{host}:$self->{port}$path";

    CORE::open my $f, '-|', @cmd or die "curl: $!";
    local $/;
    my $out = <$f> // '';
    close $f;

    my $s = bless {
        exit => $? >> 8, status => 0, headers => {}, raw_headers => [],
        body => '', in => '', sse => '', events => [], start => time()
    }, 'AI::Client::Stream';

    while ($out =~ s{^HTTP/\S+ (\d+)[^\n]*\n(.*?)\r?\n\r?\n}{}s) {
        $s->{status} = $1;
        $s->read_headers($2);
    }

    $s->{body} = $out;
    $s->feed_sse($out);
    $s->{error} = "curl exited with $s->{exit}" if $s->{exit};

    return $s;
}


package AI::Client::Stream;

use strict;
use warnings;

use Errno qw(EAGAIN EINTR);
use IO::Select;
use JSON::PP;
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

sub connect {
    my ($self) = @_;

    socket my $fh, PF_INET, SOCK_STREAM, 0 or die "socket: $!";

    # must be set before connect() to bound the window
    if ($self->{rcvbuf}) {
        setsockopt $fh, SOL_SOCKET, SO_RCVBUF, pack 'i', $self->{rcvbuf};
    }

    if (!CORE::connect($fh, pack_sockaddr_in($self->{port},
                                             inet_aton($self->{host}))))
    {
        $self->{error} = "connect: $!";
        $self->{eof} = 1;
        return;
    }

    setsockopt $fh, IPPROTO_TCP, TCP_NODELAY, pack 'i', 1;

    if ($self->{ssl}) {
        require IO::Socket::SSL;
        bless $fh, 'IO::Socket::INET';

        my $tls = IO::Socket::SSL->start_SSL($fh,
            SSL_verify_mode => 0,
            SSL_hostname => 'localhost',
            ref $self->{ssl} ? %{ $self->{ssl} } : ());

        if (!$tls) {
            $self->{error} = 'TLS: ' . IO::Socket::SSL::errstr();
            $self->{eof} = 1;
            return;
        }

        $fh = $tls;
    }

    $self->{fh} = $fh;

    return 1;
}

# further bytes of a request

sub write {
    my ($self, $data) = @_;

    local $SIG{PIPE} = 'IGNORE';

    while (length $data) {
        my $n = syswrite $self->{fh}, $data;

        # an answer may come before the whole request is sent
        if (!defined $n) {
            next if $! == EINTR;
            $self->{write_error} = "$!";
            return;
        }

        substr $data, 0, $n, '';
    }

    return 1;
}

# reads what has come, at most $max bytes; false at the end, on an error and
# when nothing came in time

sub fill {
    my ($self, $wait, $max) = @_;

    return if $self->{eof};

    my $fh = $self->{fh};

    if (!$self->{ssl} || !$fh->pending) {
        if (!IO::Select->new($fh)->can_read($wait // $self->{timeout})) {
            $self->{timedout} = 1;
            return;
        }
    }

    delete $self->{timedout};

    my $n = sysread $fh, my $data, $max // 65536;

    if (!$n) {
        return if !defined $n && $! == EINTR;
        $self->{eof} = 1;
        $self->{error} = "read: $!" if !defined $n;
        return;
    }

    $self->{in} .= $data;
    $self->parse;

    return $n;
}

sub parse {
    my ($self) = @_;

    while (!$self->{got_head}) {
        $self->{in} =~ s{^HTTP/1\.(\d) (\d+)([^\r\n]*)\r\n(.*?\r\n)?\r\n}{}s
            or return;

        my ($minor, $status, $reason, $lines) = ($1, $2, $3, $4);

        # 100 and 103 come before the answer
        if ($status < 200) {
            push @{ $self->{interim} }, $status;
            next;
        }

        $self->{status} = $status;
        $self->{head_time} = time();
        $self->{got_head} = 1;
        $self->read_headers($lines // '');

        my $h = $self->{headers};

        if ($self->{method} eq 'HEAD' || $status == 204 || $status == 304) {
            $self->{done} = 1;

        } elsif (lc($h->{'transfer-encoding'} // '') eq 'chunked') {
            $self->{is_chunked} = 1;

        } elsif (defined $h->{'content-length'}) {
            $self->{left} = $h->{'content-length'};
            $self->{done} = 1 if $self->{left} == 0;
        }
    }

    $self->parse_body;
}

sub parse_body {
    my ($self) = @_;

    while (length $self->{in} && !$self->{done}) {
        my $data;

        if ($self->{is_chunked}) {

            if (!defined $self->{left}) {
                $self->{in} =~ s/^(?:\r\n)?([0-9a-fA-F]+)[^\r\n]*\r\n//
                    or return;
                $self->{left} = hex $1;
            }

            if ($self->{left} == 0) {
                # trailers, if any, end with an empty line too
                $self->{in} =~ s/^(.*?)\r\n//s or return;
                my $line = $1;
                $self->{done} = 1 if $line eq '';
                $self->{trailers}{lc $1} = $2
                    if $line =~ /^([^:]+):\s*(.*)/;
                next;
            }

            $data = substr $self->{in}, 0, $self->{left}, '';
            $self->{left} -= length $data;
            $self->{left} = undef if $self->{left} == 0;

        } elsif (defined $self->{left}) {
            $data = substr $self->{in}, 0, $self->{left}, '';
            $self->{left} -= length $data;
            $self->{done} = 1 if $self->{left} == 0;

        } else {
            $data = $self->{in};
            $self->{in} = '';
        }

        $self->{first_time} //= time();
        $self->{body} .= $data;
        $self->feed_sse($data);
    }
}

sub read_headers {
    my ($self, $lines) = @_;

    for my $line (split /\r?\n/, $lines) {
        my ($name, $value) = $line =~ /^([^:]+):\s*(.*?)\s*$/ or next;
        push @{ $self->{raw_headers} }, [ $name, $value ];

        my $h = \$self->{headers}{lc $name};
        $$h = defined $$h ? "$$h, $value" : $value;
    }
}

sub feed_sse {
    my ($self, $data) = @_;

    return if ($self->{headers}{'content-type'} // '')
              !~ m{^text/event-stream};

    $self->{sse} .= $data;
    $self->{sse} =~ s/^\xef\xbb\xbf// if !@{ $self->{events} };

    while ($self->{sse} =~ s/^(.*?(?:\r\n\r\n|\n\n|\r\r))//s) {
        my $raw = $1;
        my ($event, @data);

        for (split /\r\n|\n|\r/, $raw) {
            $event = $1     if /^event: ?(.*)/;
            push @data, $1  if /^data: ?(.*)/;
        }

        push @{ $self->{events} }, {
            event => $event, data => @data ? join("\n", @data) : undef,
            raw => $raw, time => time()
        };
    }
}

# the header; false when none came

sub head {
    my ($self, $wait) = @_;
    my $end = time() + ($wait // $self->{timeout});

    while (!$self->{got_head} && !$self->{eof}) {
        my $left = $end - time();
        last if $left <= 0;
        $self->fill($left);
    }

    return $self->{got_head};
}

# the next event with data (or a comment, {data} is undef then); undef at the
# end and when none came in time, {timedout} tells

sub event {
    my ($self, $wait) = @_;
    my $end = time() + ($wait // $self->{timeout});

    $self->{seen} //= 0;

    while ($self->{seen} >= @{ $self->{events} }) {
        return if $self->{done} || $self->{eof};

        my $left = $end - time();

        if ($left <= 0) {
            $self->{timedout} = 1;
            return;
        }

        $self->fill($left);
    }

    return $self->{events}[ $self->{seen}++ ];
}

# decoded data of all events but "[DONE]"; of an invalid one, a string

sub chunks {
    my ($self) = @_;

    return map { eval { decode_json($_) } // $_ }
           grep { defined && $_ ne '[DONE]' }
           map { $_->{data} } @{ $self->{events} };
}

# the text of all events, whichever the dialect

sub text {
    my ($self) = @_;
    my $text = '';

    for my $c (grep { ref } $self->chunks) {
        if ($c->{choices}) {
            $text .= $_->{delta}{content} // '' for @{ $c->{choices} };

        } elsif (($c->{type} // '') eq 'content_block_delta') {
            $text .= $c->{delta}{text} // '';
        }
    }

    return $text;
}

# the rest; {done} tells whether it ended as HTTP wants it

sub finish {
    my ($self, $wait) = @_;
    my $end = time() + ($wait // $self->{timeout});

    while (!$self->{done} && !$self->{eof}) {
        my $left = $end - time();

        if ($left <= 0) {
            $self->{error} = 'timeout';
            last;
        }

        $self->fill($left);
    }

    # an answer without length ends with the connection
    if ($self->{eof} && $self->{got_head} && !$self->{is_chunked}
        && !defined $self->{left} && !$self->{error})
    {
        $self->{done} = 1;
    }

    $self->{error} //= 'closed before the end' if !$self->{done};
    $self->{time} = time() - $self->{start};
    close $self->{fh} if $self->{fh} && !$self->{keep};

    return $self->{done};
}

# reads nothing for a while: the socket's buffer fills

sub stall {
    my ($self, $seconds) = @_;
    select undef, undef, undef, $seconds;
}

# $bytes a second for $seconds

sub read_slowly {
    my ($self, $bytes, $seconds) = @_;
    my $end = time() + $seconds;
    my $n = 0;

    while (time() < $end && !$self->{done} && !$self->{eof}) {
        $n += $self->fill(0.1, int($bytes / 20) || 1) // 0;
        select undef, undef, undef, 0.05;
    }

    return $n;
}

sub json {
    my ($self) = @_;
    return eval { decode_json($self->{body}) };
}

# leaves as a closed laptop does not: FIN

sub abort {
    my ($self) = @_;
    close $self->{fh} if $self->{fh};
    $self->{eof} = 1;
}

# leaves with RST

sub reset {
    my ($self) = @_;

    if ($self->{fh}) {
        setsockopt $self->{fh}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
        close $self->{fh};
    }

    $self->{eof} = 1;
}

1;
