package AI::Kit;

# Copyright (C) nginx AI gateway authors

# What tests of requests and attempts have in common: a provider whose
# behaviour is told by the name of the model that is asked of it, and a gateway
# that logs JSON.
#
#     my $p = provider();
#     my $gw = gateway(<<"END");
#         ai_provider p { dialect openai; endpoint @{[ $p->url ]}; key none; }
#         ai_model m { target p/status:503+times:1; }
#     END
#
#     my $r = $gw->client->post('/v1/chat/completions', chat('m'));
#     my $log = logged($gw);  $log->{attempts};
#
# A model's name is a list of words joined with "+":
#
#     wait:MS      before the header         status:N      an error
#     first:MS     before the first event    after:SEC     with Retry-After
#     pace:MS      between events            code:CODE     with this code
#     n:N          words of the text         times:N       only so often, then
#     usage:IN.OUT.CACHED.REASONING                        a good answer
#     nousage      tells no usage            hang          no answer
#     big:N        events of 64 KB           close, rst    instead of one
#     cut:N        FIN after N events        stall:N       silence after them
#     html         not JSON                  noterm        no terminal event
#
# Without any of these the answer is "w1 w2 w3 w4 w5".

use strict;
use warnings;

use Exporter qw(import);
use JSON::PP;
use Test::More ();
use Time::HiRes qw(time);

use AI::Gateway;
use AI::Provider;

our @EXPORT = qw(provider gateway chat logged settled requests chatting
                 active rss idle_again checked at_best);

my $log_format = join ',', map { "\"$_->[0]\":\"$_->[1]\"" }
    map { ref $_ ? $_ : [ $_, "\$ai_$_" ] }
    [ 'status', '$status' ], [ 'uri', '$request_uri' ],
    [ 'conn', '$connection' ], [ 'upstream', '$upstream_addr' ],
    [ 'time', '$request_time' ], [ 'sent', '$body_bytes_sent' ],
    qw(model request_model provider target operation stream attempts fallback
       error finish_reason usage_state input_tokens output_tokens
       cached_tokens reasoning_tokens cost ttft region request_id);

# options are those of AI::Gateway; server (the content of server{}), events,
# listen (parameters), extra (further servers)

sub gateway {
    my ($http, %opt) = @_;
    my $server = delete $opt{server}
                 // 'location /v1/ { ai_pass model direct=on; }';
    my $events = delete $opt{events} // 'worker_connections 1024;';
    my $listen = delete $opt{listen} // '';

    my $gw = AI::Gateway->new(%opt, conf => <<"END");
events {
    $events
}

http {
    log_format ai escape=json '{$log_format}';
    access_log %%DIR%%/access.log ai;

    $http

    server {
        listen 127.0.0.1:%%PORT_0%% backlog=4096 $listen;

        $server
    }

    server {
        listen 127.0.0.1:%%PORT_status%%;
        location = /__status { access_log off; stub_status; }
    }
}
END

    return $gw->start;
}

sub provider {
    my (%opt) = @_;
    my %count;

    return AI::Provider->start(
        handler => sub { behave($_[0], \%count) },
        on_reset => sub { %count = () },
        %opt
    );
}

sub behave {
    my ($req, $count) = @_;
    my $json = ref $req->{json} eq 'HASH' ? $req->{json} : {};
    my $model = $json->{model} // '';
    my %o = map { my ($k, $v) = split /:/, $_, 2; ($k => $v // 1) }
            split /\+/, $model;

    if ($o{times} && ++$count->{$model} > $o{times}) {
        %o = ();
    }

    my @before = $o{wait} ? [ 'sleep', $o{wait} ] : ();

    return [ @before, [ 'stall' ] ] if $o{hang};
    return [ @before, [ 'close' ] ] if $o{close};
    return [ @before, [ 'reset' ] ] if $o{rst};

    if ($o{html}) {
        return [ @before, [ 'head', 200, { 'Content-Type' => 'text/html' } ],
                 [ 'chunk', '<html>hello</html>' ], [ 'end' ] ];
    }

    if ($o{status}) {
        return [ @before, @{ json_script($o{status},
            { error => { message => "failed: $o{status}", type => 'some_type',
                         param => undef, code => $o{code} } },
            $o{after} ? ('Retry-After' => $o{after}) : ()) } ];
    }

    my %say = (text => join(' ', map { "w$_" } 1 .. $o{n} // 5),
               model => $model);

    if ($o{usage}) {
        my @u = map { $_ + 0 } split /\./, $o{usage};
        $say{usage} = { in => $u[0], out => $u[1], cached => $u[2],
                        reasoning => $u[3] };
    }

    my $anthropic = $req->{path} =~ m{/messages$};

    # as the real one: only those who ask are told
    $say{usage} = undef
        if $o{nousage} || (!$anthropic && $json->{stream}
                           && !$json->{stream_options}{include_usage});

    if (!$json->{stream}) {
        return [ @before, @{ json_script(200, $anthropic
                             ? anthropic_body(%say) : openai_body(%say)) } ];
    }

    if ($o{big}) {
        # the same string each time
        my $event = (openai_stream(text => 'x' x 64000, n => 1))[1];

        return [ @before,
                 [ 'head', 200, { 'Content-Type' => 'text/event-stream' } ],
                 (map { ([ 'chunk', $event ],
                         $o{pace} ? [ 'sleep', $o{pace} ] : ()) }
                  1 .. $o{big}), [ 'end' ] ];
    }

    my @events = $anthropic ? anthropic_stream(%say) : openai_stream(%say);
    my $end;

    if (defined $o{cut} || defined $o{stall}) {
        # the first event of a stream has no content
        splice @events, ($o{cut} // $o{stall}) + ($anthropic ? 3 : 1);
        $end = [ defined $o{cut} ? 'close' : 'stall' ];
    }

    pop @events if $o{noterm};

    my $script = sse_script(\@events, interval => $o{pace});

    if ($end) {
        pop @$script;
        push @$script, $end;
    }

    if ($o{first}) {
        splice @$script, 1, 0, [ 'sleep', $o{first} ];
    }

    return [ @before, @$script ];
}

sub chat {
    my ($model, %more) = @_;

    if (exists $more{stream}) {
        $more{stream} = $more{stream} ? JSON::PP::true : JSON::PP::false;
    }

    return { model => $model,
             messages => [ { role => 'user', content => 'Hello there' } ],
             %more };
}

# lines of the access log, waits until there are $n; the last one, or all

sub logged {
    my ($gw, $n) = @_;
    my @lines;

    $gw->wait_for(sub {
        @lines = grep { /\}$/ } $gw->access_log;
        return @lines >= ($n // 1);
    });

    @lines = map { decode_json($_) } @lines;

    return wantarray ? @lines : $lines[-1];
}

# the line of the request with this path, and that there is one only

sub settled {
    my ($gw, $path, $seconds) = @_;
    my @lines;

    $gw->wait_for(sub {
        @lines = grep { index($_, "\"uri\":\"$path\"") >= 0 && /\}$/ }
                 $gw->access_log;
        return @lines > 0;
    }, $seconds // 10);

    return if @lines != 1;
    return decode_json($lines[0]);
}

# models that were asked of a provider

sub requests {
    my ($p) = @_;
    return map { (eval { decode_json($_->{body}) } // {})->{model} // '' }
           $p->log;
}

# a chat whose log line can be found: its answer, its log line

my $n = 0;

sub chatting {
    my ($gw, $model, %opt) = @_;
    my $path = '/v1/chat/completions?' . ++$n;
    my $r = $gw->client->post($path, chat($model, %{ $opt{body} // {} }),
                              headers => $opt{headers} // []);

    return ($r, settled($gw, $path) // {});
}

# connections of the clients, this one not counted

sub active {
    my ($gw) = @_;
    my $r = $gw->client(n => 'status')->get('/__status');

    return $r->{body} =~ /Active connections: (\d+)/ ? $1 - 1 : -1;
}

sub idle_again {
    my ($gw, $seconds) = @_;
    return $gw->wait_for(sub { active($gw) == 0 }, $seconds // 5);
}

# does a checker of memory run, so that the memory of a process means nothing?

sub checked {
    return $ENV{TEST_AI_VALGRIND}
           || `"$AI::Gateway::binary" -V 2>&1` =~ /-fsanitize=/;
}

# the least of what $code returns, until it is below $limit, of five times: how
# long something takes that the machine does not delay

sub at_best {
    my ($limit, $code) = @_;
    my $least;

    for (1 .. 5) {
        my $value = $code->();

        $least = $value if !defined $least || $value < $least;
        last if $least < $limit;
    }

    return $least;
}

# KB of memory of a process

sub rss {
    my ($pid) = @_;

    open my $f, '<', "/proc/$pid/status" or return 0;
    local $/;

    return <$f> =~ /^VmRSS:\s*(\d+)/m ? $1 : 0;
}

1;
