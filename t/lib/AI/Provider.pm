package AI::Provider;

# Copyright (C) nginx AI gateway authors

# A provider that does what a test tells it, in a process of its own:
#
#     my $p = AI::Provider->start(handler => sub {
#         my ($req) = @_;
#         return openai_script(text => 'Hello', stream => $req->{json}{stream});
#     });
#
#     $p->port;  $p->url;  $p->log;  $p->reset;  $p->set(down => 1);
#
# The handler gets a request and returns its script, a list of actions:
#
#     [ 'head', 200, { name => value } ]   or a list [ name, value, ... ]
#     [ 'chunk', bytes ]    part of the body, a chunk if the head says so
#     [ 'raw', bytes ]      these bytes on the wire, whatever they are
#     [ 'sleep', ms ]
#     [ 'end' ]             ends the body; the connection goes on
#     [ 'close' ]           FIN after what was sent; in a chunked body a cut
#     [ 'reset' ]           RST
#     [ 'stall' ]           nothing more, until the client leaves
#
# A head without Content-Length and Transfer-Encoding is sent as chunked.  A
# script that ends without one of the last four ends as with 'end'.
#
# A request is { method, path, query, headers, body, json, conn (number of its
# connection), nth (of its connection), n (of all), time, sni, vars }.
#
# The log is a list of requests, with what became of them: "sent" bytes, "end"
# (time when all was sent), "hangup" (time when the client left before that).

use strict;
use warnings;

use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Exporter qw(import);
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

use AI::Client;
use AI::Port;

our @EXPORT = qw(
    openai_script openai_body openai_stream
    anthropic_script anthropic_body anthropic_stream
    json_script sse_script split_text encode
);

my $owner = $$;
my @all;
my $json = JSON::PP->new->canonical;

# handler; port; host (an address of this machine, for the listening socket);
# ssl => { cert, key, alpn => [...] }; on_reset => sub; vars =>
# { ... }: what set() changes and a handler finds in $req->{vars}; raw => 1:
# large bodies are neither decoded nor logged

sub start {
    my ($class, %arg) = @_;
    my $self = bless { vars => {}, %arg }, $class;

    $self->{port} //= AI::Port::free_port();

    my $listen = IO::Socket::INET->new(
        LocalAddr => $self->{host} // '127.0.0.1',
        LocalPort => $self->{port},
        Listen => 1024, ReuseAddr => 1, Proto => 'tcp', Blocking => 0
    ) or die "port $self->{port}: $!";

    # the control endpoint is apart: it works with TLS and with a handler that
    # is busy with all its connections
    my $control = IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', Listen => 16, Proto => 'tcp', Blocking => 0
    ) or die "control port: $!";

    $self->{control} = $control->sockport;

    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        $SIG{PIPE} = 'IGNORE';
        $SIG{TERM} = sub { POSIX::_exit(0) };
        $SIG{INT} = 'DEFAULT';

        eval { $self->serve($listen, $control); 1 }
            or print STDERR "# provider on port $self->{port} died: $@";

        # not through END blocks of the test
        POSIX::_exit(1);
    }

    $self->{pid} = $pid;
    push @all, $self;

    return $self;
}

sub port { $_[0]{port} }

sub url {
    my ($self, $path) = @_;
    my $scheme = $self->{ssl} ? 'https' : 'http';
    return "$scheme://127.0.0.1:$self->{port}" . ($path // '');
}

sub stop {
    my ($self) = @_;

    return if !$self->{pid};

    kill 'TERM', $self->{pid};
    waitpid $self->{pid}, 0;
    delete $self->{pid};
}

END {
    if ($$ == $owner) {
        local $?;
        $_->stop for @all;
    }
}

sub ask {
    my ($self, $method, $path, $body) = @_;

    my $r = AI::Client->new(port => $self->{control})
                      ->request($method, $path, $body);

    die "control of provider: " . ($r->{error} // $r->{status})
        if $r->{status} != 200;

    return $r->json;
}

# requests since the start or the last reset; bodies are bytes

sub log   { @{ $_[0]->ask('GET', '/__log') } }
sub reset { $_[0]->ask('POST', '/__reset', '{}') }

# what handlers find in $req->{vars}

sub set {
    my ($self, %vars) = @_;
    return $self->ask('POST', '/__set', \%vars);
}

# connections that are open, and how many there ever were

sub connections { $_[0]->ask('GET', '/__connections') }

# waits until $check, called with the log, is true; returns its value

sub wait_log {
    my ($self, $check, $seconds) = @_;
    my $end;

    $seconds //= $AI::Client::timeout;
    $end = time() + ($seconds < 15 ? 15 : $seconds);

    while (1) {
        my $v = $check->($self->log);
        return $v if $v || time() > $end;
        select undef, undef, undef, 0.02;
    }
}


# the server: one process, all connections in one select() loop

sub serve {
    my ($self, $listen, $control) = @_;

    if ($self->{ssl}) {
        require IO::Socket::SSL;
    }

    $self->{listen} = $listen;
    $self->{control_fh} = $control;
    $self->{conns} = {};
    $self->{log} = [];
    $self->{accepted} = 0;
    $self->{requests} = 0;

    my $parent = getppid;

    while (1) {
        my ($r, $w) = ('', '');
        my $now = time();
        my $timeout = 1;

        vec($r, fileno $listen, 1) = 1;
        vec($r, fileno $control, 1) = 1;

        for my $c (values %{ $self->{conns} }) {
            my $fd = fileno $c->{fh};

            vec($r, $fd, 1) = 1 if !$c->{eof};
            vec($w, $fd, 1) = 1 if length $c->{out} || $c->{want_write};

            if ($c->{wake} && $c->{wake} - $now < $timeout) {
                $timeout = $c->{wake} > $now ? $c->{wake} - $now : 0;
            }

            $timeout = 0 if $c->{ssl} && !$c->{handshake} && $c->{fh}->pending;
        }

        my $n = select $r, $w, undef, $timeout;

        # the test was killed
        POSIX::_exit(0) if getppid != $parent;

        if ($n > 0) {
            $self->accept_all($listen, 0)  if vec($r, fileno $listen, 1);
            $self->accept_all($control, 1) if vec($r, fileno $control, 1);
        }

        for my $c (values %{ $self->{conns} }) {
            my $fd = fileno $c->{fh};

            if ($n > 0 && $c->{handshake}
                && (vec($r, $fd, 1) || vec($w, $fd, 1)))
            {
                $self->handshake($c);
                next if $c->{gone} || $c->{handshake};
            }

            if (!$c->{handshake} && !$c->{eof}
                && (($n > 0 && vec($r, $fd, 1))
                    || ($c->{ssl} && $c->{fh}->pending)))
            {
                $self->readable($c);
            }

            $self->run($c) if !$c->{gone} && !$c->{handshake};
        }
    }
}

sub accept_all {
    my ($self, $listen, $control) = @_;

    while (accept my $fh, $listen) {
        bless $fh, 'IO::Socket::INET';
        $fh->blocking(0);
        setsockopt $fh, IPPROTO_TCP, TCP_NODELAY, pack 'i', 1;

        my $c = { fh => $fh, in => '', out => '', nth => 0, queue => [],
                  control => $control };

        if (!$control) {
            $c->{id} = ++$self->{accepted};

            if ($self->{ssl}) {
                my $ssl = $self->{ssl};

                IO::Socket::SSL->start_SSL($fh,
                    SSL_server => 1, SSL_startHandshake => 0,
                    SSL_cert_file => $ssl->{cert},
                    SSL_key_file => $ssl->{key},
                    $ssl->{alpn} ? (SSL_alpn_protocols => $ssl->{alpn}) : ());

                $c->{ssl} = 1;
                $c->{handshake} = 1;
            }
        }

        # by reference: a number of a descriptor may be used again
        $self->{conns}{"$c"} = $c;
    }
}

sub handshake {
    my ($self, $c) = @_;

    if ($c->{fh}->accept_SSL) {
        $c->{handshake} = 0;
        $c->{want_write} = 0;
        $c->{sni} = $c->{fh}->get_servername;
        $c->{alpn} = $c->{fh}->alpn_selected if $self->{ssl}{alpn};
        return;
    }

    if ($! == EAGAIN || $! == EWOULDBLOCK) {
        $c->{want_write} =
            IO::Socket::SSL::errstr() == IO::Socket::SSL::SSL_WANT_WRITE()
            ? 1 : 0;
        return;
    }

    push @{ $self->{log} }, { tls_error => IO::Socket::SSL::errstr() . '',
                              conn => $c->{id}, time => time() };
    $self->drop($c);
}

sub readable {
    my ($self, $c) = @_;

    my $n = sysread $c->{fh}, my $data, 65536;

    if (!defined $n) {
        return if $! == EAGAIN || $! == EINTR || $! == EWOULDBLOCK;
        $c->{error} = "$!";
        $n = 0;
    }

    if ($n == 0) {
        # who closes while an answer is under way has left: nobody uses
        # half-closed connections here
        $c->{eof} = 1;

        if ($c->{req}) {
            $c->{entry}{hangup} = time();
            $c->{entry}{hangup_error} = $c->{error} if $c->{error};
        }

        $self->drop($c);
        return;
    }

    $c->{in} .= $data;
}

sub drop {
    my ($self, $c) = @_;

    delete $self->{conns}{"$c"};
    $c->{gone} = 1;

    # after a handshake that failed it is a plain socket again
    if (ref $c->{fh} eq 'IO::Socket::SSL') {
        $c->{fh}->close(SSL_no_shutdown => 1);
    } else {
        close $c->{fh};
    }
}

# goes on with a connection as far as it can

sub run {
    my ($self, $c) = @_;

    while (!$c->{gone}) {
        if (length $c->{out}) {
            my $n = syswrite $c->{fh}, $c->{out};

            if (!defined $n) {
                return if $! == EAGAIN || $! == EINTR || $! == EWOULDBLOCK;
                $c->{entry}{hangup} = time() if $c->{req};
                $self->drop($c);
                return;
            }

            substr $c->{out}, 0, $n, '';
            $c->{entry}{sent} += $n if $c->{entry};
            return if length $c->{out};
        }

        if ($c->{wake}) {
            return if time() < $c->{wake};
            $c->{wake} = 0;
        }

        if (!$c->{req}) {
            $self->parse($c) or return;
            next;
        }

        my $action = shift @{ $c->{queue} } // [ 'end' ];
        $self->act($c, @$action) or return;
    }
}

# true: there is more to do now

sub act {
    my ($self, $c, $what, @arg) = @_;

    if ($what eq 'head') {
        $c->{out} .= $self->head($c, @arg);

    } elsif ($what eq 'chunk') {
        # an empty chunk would be the last one
        if (length $arg[0]) {
            $c->{out} .= $c->{chunked}
                         ? sprintf("%x\r\n%s\r\n", length $arg[0], $arg[0])
                         : $arg[0];
        }

    } elsif ($what eq 'raw') {
        $c->{out} .= $arg[0];

    } elsif ($what eq 'sleep') {
        # from the time when it was due, else delays would add up
        my $now = time();
        my $due = ($c->{due} && $now - $c->{due} < 0.05 ? $c->{due} : $now)
                  + $arg[0] / 1000;
        $c->{due} = $c->{wake} = $due;

    } elsif ($what eq 'end') {
        if ($c->{chunked} && !$c->{last}) {
            $c->{out} .= "0\r\n\r\n";
            $c->{last} = 1;
            unshift @{ $c->{queue} }, [ 'end' ];
            return 1;
        }

        $c->{entry}{end} = time();
        $c->{req} = undef;
        $c->{queue} = [];

        if ($c->{close}) {
            $self->drop($c);
            return;
        }

    } elsif ($what eq 'close') {
        $c->{entry}{end} = time();
        # an unread request would turn FIN into RST
        $self->drop($c);
        return;

    } elsif ($what eq 'reset') {
        $c->{entry}{end} = time();
        setsockopt $c->{fh}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
        $self->drop($c);
        return;

    } elsif ($what eq 'stall') {
        unshift @{ $c->{queue} }, [ 'stall' ];
        $c->{wake} = time() + 3600;
        return;

    } else {
        die "unknown action \"$what\"";
    }

    return 1;
}

sub head {
    my ($self, $c, $status, $headers) = @_;
    my @list = ref $headers eq 'HASH'
               ? map { $_ => $headers->{$_} } sort keys %$headers
               : @{ $headers // [] };
    my %has;
    my $text = '';

    while (@list) {
        my ($name, $value) = splice @list, 0, 2;
        $has{lc $name} = lc $value;
        $text .= "$name: $value\r\n";
    }

    $c->{close} = 1 if ($has{connection} // '') eq 'close';
    $c->{last} = 0;
    $c->{chunked} = ($has{'transfer-encoding'} // '') eq 'chunked';

    if (!$c->{chunked} && !exists $has{'content-length'} && $status != 204) {
        if ($c->{http10} || $c->{close}) {
            $c->{close} = 1;
        } else {
            $c->{chunked} = 1;
            $text .= "Transfer-Encoding: chunked\r\n";
        }
    }

    return "HTTP/1.1 $status " . ($status < 300 ? 'OK' : 'Error')
           . "\r\n$text\r\n";
}

# takes a request from what was read; true when there is one

sub parse {
    my ($self, $c) = @_;

    if (!$c->{partial}) {
        $c->{in} =~ s{^(\S+) (\S+) HTTP/1\.(\d)\r\n(.*?\r\n)?\r\n}{}s
            or return;

        my ($method, $target, $minor, $lines) = ($1, $2, $3, $4 // '');
        my ($path, $query) = split /\?/, $target, 2;
        my (%headers, @raw);

        for (split /\r\n/, $lines) {
            my ($name, $value) = /^([^:]+):\s*(.*?)\s*$/ or next;
            push @raw, [ $name, $value ];
            $headers{lc $name} = exists $headers{lc $name}
                                 ? $headers{lc $name} . ", $value" : $value;
        }

        $c->{http10} = $minor == 0;
        $c->{close} = $minor == 0
                      || lc($headers{connection} // '') eq 'close';

        $c->{partial} = {
            method => $method, path => $path, query => $query // '',
            headers => \%headers, raw_headers => \@raw, body => ''
        };

        if (lc($headers{expect} // '') eq '100-continue') {
            syswrite $c->{fh}, "HTTP/1.1 100 Continue\r\n\r\n";
        }
    }

    my $req = $c->{partial};

    if (lc($req->{headers}{'transfer-encoding'} // '') eq 'chunked') {

        while (1) {
            $c->{in} =~ /^([0-9a-fA-F]+)[^\r\n]*\r\n/ or return;
            my ($len, $skip) = (hex $1, $+[0]);
            return if length $c->{in} < $skip + $len + 2;
            $req->{body} .= substr $c->{in}, $skip, $len;
            substr $c->{in}, 0, $skip + $len + 2, '';
            last if $len == 0;
        }

    } else {
        my $len = $req->{headers}{'content-length'} // 0;
        return if length $c->{in} < $len;
        $req->{body} = substr $c->{in}, 0, $len, '';
    }

    $c->{partial} = undef;
    $c->{req} = $req;
    $c->{due} = undef;
    $c->{chunked} = 0;
    $c->{last} = 0;

    if ($c->{control}) {
        $c->{entry} = {};
        $c->{queue} = $self->controlled($req);
        return 1;
    }

    $req->{time} = time();
    $req->{conn} = $c->{id};
    $req->{nth} = ++$c->{nth};
    $req->{n} = ++$self->{requests};
    $req->{sni} = $c->{sni};
    $req->{alpn} = $c->{alpn};
    $req->{sent} = 0;

    # the log keeps no decoded body
    $c->{entry} = $req;
    push @{ $self->{log} }, $req;

    my %view = (%$req, vars => $self->{vars});

    if ($self->{raw}) {
        $req->{body} = '';

    } elsif (length $req->{body}) {
        $view{json} = eval { decode_json($req->{body}) };
    }

    $c->{queue} = eval { [ @{ $self->{handler}->(\%view) } ] };

    if ($@) {
        $c->{queue} = json_script(599, { error => "handler: $@" });
        print STDERR "# provider's handler died: $@";
    }

    return 1;
}

sub controlled {
    my ($self, $req) = @_;
    my $answer;

    if ($req->{path} eq '/__log') {
        # bytes as characters below 256, which come back as the same bytes
        my $text = JSON::PP->new->ascii->canonical->encode($self->{log});
        return [ [ 'head', 200, { 'Content-Type' => 'application/json',
                                  'Content-Length' => length $text } ],
                 [ 'chunk', $text ], [ 'end' ] ];
    }

    if ($req->{path} eq '/__reset') {
        $self->{log} = [];
        $self->{requests} = 0;
        $self->{on_reset}->() if $self->{on_reset};
        $answer = { ok => 1 };

    } elsif ($req->{path} eq '/__set') {
        my $vars = decode_json($req->{body});
        $self->{vars}{$_} = $vars->{$_} for keys %$vars;
        $answer = $self->{vars};

    } elsif ($req->{path} eq '/__connections') {
        $answer = {
            accepted => $self->{accepted},
            open => scalar grep { !$_->{control} } values %{ $self->{conns} }
        };

    } else {
        return json_script(404, { error => 'no such control' });
    }

    return json_script(200, $answer);
}


# helpers of handlers

sub encode { ref $_[0] ? $json->utf8->encode($_[0]) : $_[0] }

# $n parts of about the same length; characters stay whole

sub split_text {
    my ($text, $n) = @_;

    return if $text eq '';

    $n = length $text if $n > length $text;

    return map {
        my $from = int(length($text) * $_ / $n);
        substr $text, $from, int(length($text) * ($_ + 1) / $n) - $from
    } 0 .. $n - 1;
}

# an unstreamed answer; body is a reference or bytes

sub json_script {
    my ($status, $body, @headers) = @_;
    my $text = encode($body);

    return [
        [ 'head', $status, [ 'Content-Type' => 'application/json',
                             'Content-Length' => length $text, @headers ] ],
        [ 'chunk', $text ],
        [ 'end' ]
    ];
}

# a stream: events are bytes; interval in ms between them

sub sse_script {
    my ($events, %opt) = @_;
    my @script = [ 'head', $opt{status} // 200,
                   [ 'Content-Type' => 'text/event-stream',
                     'Cache-Control' => 'no-cache',
                     @{ $opt{headers} // [] } ] ];
    my $first = 1;

    for my $event (@$events) {
        push @script, [ 'sleep', $opt{interval} ]
            if $opt{interval} && !$first;
        push @script, [ 'chunk', $event ];
        $first = 0;
    }

    return [ @script, [ 'end' ] ];
}

# Options of all six below: text; n (parts of the text in a stream, by default
# its words); model; id; finish; usage ({ in, out, cached, reasoning }, or
# undef for none); tools (a list of { id, name, args, n }); created.  Of the
# scripts also: stream; interval; headers.

sub words { my @w = $_[0] =~ /\s*\S+|\s+$/g; return @w }

sub count_words { my @w = words($_[0] // ''); return scalar @w }

sub parts {
    my (%o) = @_;
    my $text = $o{text} // '';
    return $o{n} ? split_text($text, $o{n}) : words($text);
}

sub openai_usage {
    my (%o) = @_;
    my $u = exists $o{usage} ? $o{usage} : {};

    return undef if !$u;

    my $in = $u->{in} // 10;
    my $out = $u->{out} // count_words($o{text});
    my $usage = { prompt_tokens => $in, completion_tokens => $out,
                  total_tokens => $in + $out };

    $usage->{prompt_tokens_details} = { cached_tokens => $u->{cached} }
        if defined $u->{cached};
    $usage->{completion_tokens_details} =
        { reasoning_tokens => $u->{reasoning} } if defined $u->{reasoning};

    return $usage;
}

sub openai_finish {
    my (%o) = @_;
    return $o{finish} // ($o{tools} ? 'tool_calls' : 'stop');
}

sub openai_body {
    my (%o) = @_;
    my $message = { role => 'assistant', refusal => undef,
                    content => $o{text} };

    if ($o{tools}) {
        $message->{tool_calls} = [
            map { { id => $_->{id}, type => 'function', function =>
                    { name => $_->{name}, arguments => $_->{args} } } }
            @{ $o{tools} }
        ];
    }

    my $usage = openai_usage(%o);

    return encode({
        id => $o{id} // 'chatcmpl-1', object => 'chat.completion',
        created => $o{created} // 1700000000, model => $o{model} // 'test',
        choices => [ { index => 0, message => $message, logprobs => undef,
                       finish_reason => openai_finish(%o) } ],
        $usage ? (usage => $usage) : ()
    });
}

sub openai_stream {
    my (%o) = @_;
    my @events;

    my $add = sub {
        my ($delta, $finish, %more) = @_;

        push @events, 'data: ' . encode({
            id => $o{id} // 'chatcmpl-1', object => 'chat.completion.chunk',
            created => $o{created} // 1700000000, model => $o{model} // 'test',
            choices => [ $delta ? { index => 0, delta => $delta,
                                    finish_reason => $finish } : () ],
            %more
        }) . "\n\n";
    };

    $add->({ role => 'assistant', content => '' });
    $add->({ content => $_ }) for parts(%o);

    my $i = 0;

    for my $tool (@{ $o{tools} // [] }) {
        $add->({ tool_calls => [ { index => $i, id => $tool->{id},
                                   type => 'function', function =>
                                   { name => $tool->{name},
                                     arguments => '' } } ] });

        $add->({ tool_calls => [ { index => $i,
                                   function => { arguments => $_ } } ] })
            for split_text($tool->{args}, $tool->{n} // 3);

        $i++;
    }

    $add->({}, openai_finish(%o));

    # with stream_options.include_usage only; the caller knows
    my $usage = openai_usage(%o);
    $add->(undef, undef, usage => $usage) if $usage;

    push @events, "data: [DONE]\n\n" if $o{done} // 1;

    return @events;
}

sub openai_script {
    my (%o) = @_;

    return $o{stream}
           ? sse_script([ openai_stream(%o) ], %o)
           : json_script(200, openai_body(%o), @{ $o{headers} // [] });
}

sub anthropic_usage {
    my (%o) = @_;
    my $u = (exists $o{usage} ? $o{usage} : {}) // {};

    return {
        input_tokens => $u->{in} // 10,
        output_tokens => $u->{out} // count_words($o{text}),
        cache_read_input_tokens => $u->{cached} // 0,
        cache_creation_input_tokens => $u->{written} // 0
    };
}

sub anthropic_body {
    my (%o) = @_;

    return encode({
        id => $o{id} // 'msg_1', type => 'message', role => 'assistant',
        model => $o{model} // 'test',
        content => [
            length($o{text} // '') ? { type => 'text', text => $o{text} } : (),
            map { { type => 'tool_use', id => $_->{id}, name => $_->{name},
                    input => decode_json($_->{args}) } } @{ $o{tools} // [] }
        ],
        stop_reason => $o{finish} // ($o{tools} ? 'tool_use' : 'end_turn'),
        stop_sequence => undef, usage => anthropic_usage(%o)
    });
}

sub anthropic_stream {
    my (%o) = @_;
    my $usage = anthropic_usage(%o);
    my @events;

    my $add = sub {
        my ($type, %more) = @_;
        push @events, "event: $type\ndata: "
                      . encode({ type => $type, %more }) . "\n\n";
    };

    $add->('message_start', message => {
        id => $o{id} // 'msg_1', type => 'message', role => 'assistant',
        model => $o{model} // 'test', content => [], stop_reason => undef,
        stop_sequence => undef, usage => { %$usage, output_tokens => 1 }
    });

    my $i = 0;

    if (length($o{text} // '')) {
        $add->('content_block_start', index => $i,
               content_block => { type => 'text', text => '' });
        $add->('ping');
        $add->('content_block_delta', index => $i,
               delta => { type => 'text_delta', text => $_ }) for parts(%o);
        $add->('content_block_stop', index => $i++);
    }

    for my $tool (@{ $o{tools} // [] }) {
        $add->('content_block_start', index => $i, content_block => {
            type => 'tool_use', id => $tool->{id}, name => $tool->{name},
            input => {}
        });
        $add->('content_block_delta', index => $i, delta => {
            type => 'input_json_delta', partial_json => $_
        }) for split_text($tool->{args}, $tool->{n} // 3);
        $add->('content_block_stop', index => $i++);
    }

    $add->('message_delta', delta => {
        stop_reason => $o{finish} // ($o{tools} ? 'tool_use' : 'end_turn'),
        stop_sequence => undef
    }, usage => { output_tokens => $usage->{output_tokens} });

    $add->('message_stop') if $o{done} // 1;

    return @events;
}

sub anthropic_script {
    my (%o) = @_;

    return $o{stream}
           ? sse_script([ anthropic_stream(%o) ], %o)
           : json_script(200, anthropic_body(%o), @{ $o{headers} // [] });
}

1;
