package AI::Rescue;

# Copyright (C) nginx AI gateway authors

# A provider that fails in the ways of a table, and one that does not, each in
# both dialects, behind a gateway:
#
#     my $x = AI::Rescue->new(faults => { cut => { script => sub { ... } } });
#
#     my $call = $x->call('a', 'cut-oa', stream => 1);
#     my $r = $x->answer($call);
#     $x->read_logs;
#     $x->bad($r); $x->good($r);       requests that the providers got of it
#
# Dialects are "o" and "a".  Models: FAULT-o and FAULT-a have no fallback; in
# FAULT-oa the target speaks OpenAI's dialect, its fallback Anthropic's.  A
# script gets (request, dialect, n-th request of its model, healthy script).
# Of a fault also: more (directives of its models), fallback (options of it),
# name (of the upstream model, default: that of the fault).
#
# Options of new(): text (of both providers), fallback_text, more (of all
# models), timeout, conf (further lines in http {}), dialects ("o a").

use strict;
use warnings;

use JSON::PP;

use AI::Client;
use AI::Gateway;
use AI::Provider;
use AI::Wellformed;

our %dialect = (o => 'openai', a => 'anthropic');
our %path = (o => '/v1/chat/completions', a => '/v1/messages');
our %key = (bad => { o => 'sk-bad', a => 'ak-bad' },
            good => { o => 'sk-good', a => 'ak-good' });

sub new {
    my ($class, %arg) = @_;
    my $self = bless { timeout => 'connect=1s first=3s idle=2s total=20s',
                       more => '', conf => '', %arg }, $class;
    my $faults = $self->{faults};
    my @dialects = split ' ', $arg{dialects} // 'o a';
    my $text = $arg{text};
    my $fallback_text = $arg{fallback_text} // $text;
    my %count;

    # whoever follows a redirection tells its credentials to this one
    $self->{trap} = AI::Provider->start(handler => sub {
        return json_script(200, { trapped => 1 });
    });

    my $trap = $self->{trap}->url('/v1/chat/completions');

    $self->{bad} = AI::Provider->start(handler => sub {
        my ($req) = @_;
        my $d = of($req);
        my ($name) = ($req->{json}{model} // '') =~ /^up-(.*)/;
        my $fault = $name && $faults->{$name}
                    or return json_script(418, { error => 'no such fault' });

        $req->{trap} = $trap;

        return $fault->{script}->($req, $d, ++$count{$name},
                                  sub { healthy($req, $text, @_) });
    });

    $self->{good} = AI::Provider->start(handler => sub {
        my ($req) = @_;
        my $rest = rest($req, $fallback_text);
        return healthy($req, $rest // $fallback_text);
    });

    my $conf = $self->{conf};

    for my $d (@dialects) {
        for my $who ('bad', 'good') {
            $conf .= "ai_provider $who-$d { dialect $dialect{$d}; endpoint "
                     . $self->{$who}->url . "; key $key{$who}{$d}; "
                     . "timeout $self->{timeout}; }\n";
        }

        for my $f (sort keys %$faults) {
            my $more = ($faults->{$f}{more} // '') . $self->{more};
            my $option = $faults->{$f}{fallback} // '';
            my $name = $faults->{$f}{name} // $f;

            $conf .= "ai_model $f-$d { target bad-$d/up-$name; $more }\n";

            $conf .= "ai_model $f-$d$_ { target bad-$d/up-$name; "
                     . "fallback good-$_/good-$f $option; $more }\n"
                for @dialects;
        }
    }

    $self->{gw} = AI::Gateway->new(workers => 2, conf => <<"END");
events {
    worker_connections 4096;
}

http {
    log_format ai '\$ai_request_id \$ai_model a=\$ai_attempts '
                  'u=\$ai_usage_state out=\$ai_output_tokens '
                  'f=\$ai_fallback t=\$request_time';
    access_log %%DIR%%/access.log ai;
    keepalive_timeout 0;

    $conf

    server {
        listen 127.0.0.1:%%PORT_0%%;

        location /v1/ { ai_pass model; }
    }
}
END

    $self->{gw}->start;

    return $self;
}

sub of { $_[0]{path} =~ m{/messages$} ? 'a' : 'o' }

# what becomes of a provider's status: that of overload is not the same in both
# dialects

sub status {
    my ($status, $caller, $route) = @_;

    return $status if $status !~ /^5[02][39]$/ || $route =~ /^$caller/;
    return $caller eq 'a' ? 529 : 503;
}

sub healthy {
    my ($req, $text, %opt) = @_;
    my $d = of($req);

    my %o = (
        text => $text, model => $req->{json}{model}, interval => 2,
        usage => $d eq 'a' || !$req->{json}{stream}
                 || $req->{json}{stream_options}{include_usage}
                 ? { in => 7 } : undef,
        stream => $req->{json}{stream}, %opt
    );

    return $d eq 'a' ? anthropic_script(%o) : openai_script(%o);
}

# what a continued answer lacks

sub rest {
    my ($req, $text) = @_;
    my $last = ($req->{json}{messages} // [])->[-1] // {};

    return if ($last->{role} // '') ne 'assistant';

    my $content = ref $last->{content}
                  ? join '', map { $_->{text} } @{ $last->{content} }
                  : $last->{content};

    return index($text, $content) == 0 ? substr $text, length $content : $text;
}

# sends a request; options: stream, body (more members), headers

sub call {
    my ($self, $caller, $model, %opt) = @_;

    my %body = (
        model => $model, max_tokens => 500,
        messages => [ { role => 'user', content => 'Say something.' } ],
        $opt{stream} ? (stream => JSON::PP::true) : (),
        $opt{stream} && $caller eq 'o' && ($opt{usage} // 1)
        ? (stream_options => { include_usage => JSON::PP::true }) : (),
        %{ $opt{body} // {} },
    );

    my @headers = $caller eq 'o'
        ? (Authorization => 'Bearer sk-client')
        : ('x-api-key' => 'sk-client', 'anthropic-version' => '2023-06-01');

    my $r = $self->{gw}->client(timeout => 25)
                 ->open($path{$caller}, \%body,
                        headers => [ @headers, @{ $opt{headers} // [] } ]);

    $r->{caller} = $caller;
    $r->{asked} = $model;

    return $r;
}

sub answer {
    my ($self, $r) = @_;
    $r->finish;
    return $r;
}

# all of a list of [ caller, model, options ], some at a time: a provider that
# is kept too busy would look like a slow one

sub all {
    my ($self, $at_once, @list) = @_;
    my @answers;

    while (my @wave = splice @list, 0, $at_once) {
        my @running = map { $self->call(@$_) } @wave;
        push @answers, map { $self->answer($_) } @running;
    }

    return @answers;
}

sub read_logs {
    my ($self) = @_;

    for my $who ('bad', 'good') {
        $self->{log}{$who} = {};

        push @{ $self->{log}{$who}{ $_->{headers}{'x-request-id'} // '' } }, $_
            for $self->{$who}->log;
    }
}

# after read_logs()

sub bad  { requests($_[0], 'bad', $_[1]) }
sub good { requests($_[0], 'good', $_[1]) }

sub requests {
    my ($self, $who, $r) = @_;
    my $id = $r->{headers}{'x-request-id'} // 'none';
    return @{ $self->{log}{$who}{$id} // [] };
}

sub ask {
    my ($self, @arg) = @_;
    my $r = $self->answer($self->call(@arg));
    $self->read_logs;
    return $r;
}

# what is wrong with the requests that providers got: an attempt carries the
# credentials, host and body of its own provider only

sub strays {
    my ($self) = @_;
    my @bad;

    push @bad, 'a redirection was followed' if $self->{trap}->log;

    for my $who ('bad', 'good') {
        my $port = $self->{$who}->port;

        for my $req ($self->{$who}->log) {
            my $d = of($req);
            my $h = $req->{headers};
            my $body = eval { decode_json($req->{body}) };
            my $name = "$who-$d " . ($body->{model} // '?');

            my $add = sub { push @bad, "$name: $_[0]" };

            $add->('body is not JSON') if !$body;
            $add->('host') if $h->{host} ne "127.0.0.1:$port";

            my $prefix = $who eq 'bad' ? 'up-' : 'good-';
            $add->('model') if ($body->{model} // '') !~ /^$prefix/;

            my $own = $key{$who}{$d};
            my $sent = $d eq 'o' ? $h->{authorization} : $h->{'x-api-key'};

            $add->('key ' . ($sent // 'none'))
                if ($sent // '') ne ($d eq 'o' ? "Bearer $own" : $own)
                   && ($sent // '') !~ /sk-k\d$/;
            $add->('a second credential')
                if $d eq 'o' ? $h->{'x-api-key'} : $h->{authorization};

            $add->('no anthropic-version')
                if $d eq 'a' && !$h->{'anthropic-version'};
            $add->('no max_tokens') if $d eq 'a' && !$body->{max_tokens};
            $add->('stream_options')
                if $d eq 'a' && $body->{stream_options};
            $add->('accept-encoding')
                if ($h->{'accept-encoding'} // '') ne 'identity';

            my $all = $req->{body} . join "\n", map { @$_ }
                                                    @{ $req->{raw_headers} };

            $add->('the client\'s key') if $all =~ /sk-client/;

            for my $other (map { values %$_ } values %key) {
                $add->("key $other") if $other ne $own && $all =~ /\b$other\b/;
            }
        }
    }

    my %seen;

    return grep { !$seen{$_}++ } @bad;
}

# of a request, from the access log

sub logged {
    my ($self, $r) = @_;
    my $id = $r->{headers}{'x-request-id'} // 'none';
    my $line = $self->{gw}->wait_log(qr/^\Q$id\E /, 'access.log') // '';
    my %h = $line =~ /(\w+)=(\S+)/g;

    return \%h;
}

1;
