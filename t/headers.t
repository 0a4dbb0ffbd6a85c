#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazards 24 and 26: what is echoed cannot inject anything into a header, an
# event, a log or the provider's request; keys and credentials are seen by
# nobody but their provider.  Hazard 14: connections with different TLS names
# or credentials.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;

use AI::Cert;
use AI::Kit;
use AI::Gateway;
use AI::Port;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $json = JSON::PP->new->canonical->allow_nonref;

# answers with what set() says, else echoes the model into everything

my $p = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $v = $req->{vars};
    my $model = (ref $req->{json} eq 'HASH' ? $req->{json}{model} : undef)
                // '';
    my $auth = $req->{headers}{authorization} // '';

    return $v->{script} if $v->{script};
    return json_script($v->{status}, { error => { message =>
                       "key $auth is bad: $model" } })
        if $v->{status};
    return openai_script(text => 'fine', model => $model,
                         stream => $req->{json}{stream});
});

my $q = provider();

# keys, each of which may be sent to one provider only

my %canary = (p => 'sk-CANARYpAAAAAAAAAAAAAAAAAAAA',
              q => 'sk-CANARYqBBBBBBBBBBBBBBBBBBBB',
              file => 'sk-CANARYfCCCCCCCCCCCCCCCCCCCC',
              env => 'sk-CANARYeDDDDDDDDDDDDDDDDDDDD',
              client => 'sk-CANARYcEEEEEEEEEEEEEEEEEEEE');
my ($url, $other) = ($p->url, $q->url);

my $gw = gateway(<<"END", files => { key => "$canary{file}\n" },
    ai_provider p { dialect openai; endpoint $url; key $canary{p}; }
    ai_provider q { dialect openai; endpoint $other; key $canary{q}; }
    ai_provider f { dialect openai; endpoint $other; key file:key; }
    ai_provider e { dialect anthropic; endpoint $other; key env:AI_CANARY; }
    ai_provider h { dialect openai; endpoint $url; key none;
                    header X-Model \$ai_request_model;
                    header X-Arg \$arg_x; }
    ai_provider mine { dialect openai; endpoint $other; client_key pass; }
    ai_provider static { dialect static; }
    ai_model m      { target p/ok; fallback q/ok; retry off; }
    ai_model chain  { target p/x; fallback q/status:401 f/status:403
                      e/status:500 mine/status:500; retry off; }
    ai_model mine   { target mine/ok; }
    ai_model echo   { target static/x; }
END
    env => { AI_CANARY => $canary{env} }, server => <<'SERVER');
    location /v1/  { add_header X-Asked "$ai_request_model" always; ai_pass model; }
    location /p/   { ai_pass p; }
    location /h/   { ai_pass h; }
    location /s/   { ai_pass static; }
SERVER

my @client = (Authorization => "Bearer $canary{client}",
              'x-api-key' => $canary{client}, 'api-key' => $canary{client},
              'Cookie' => "session=$canary{client}");
my @answers;

sub ask {
    my ($path, $body) = @_;
    my $r = $gw->client->post($path, $body, headers => \@client);
    push @answers, $r;
    return $r;
}

# all that can fail, with everything in place

for my $how ({ status => undef }, { status => 401 }, { status => 400 },
             { status => 500 }, { status => 429 },
             { script => [ [ 'reset' ] ] }, { script => [ [ 'close' ] ] },
             { script => [ [ 'raw', "HTTP/1.1 200 OK\r\nX: sk-CANARY\r\n" ],
                           [ 'close' ] ] },
             { script => [ [ 'raw', "nonsense\r\n\r\n" ], [ 'close' ] ] })
{
    $p->set(status => $how->{status}, script => $how->{script});

    for my $model (qw(m chain mine echo none)) {
        ask('/v1/chat/completions', chat($model, stream => 0));
        ask('/v1/chat/completions', chat($model, stream => 1));
        ask('/v1/messages', chat($model, max_tokens => 9));
    }

    ask('/h/chat/completions', chat('x'));

    # here the client is told whatever the provider says
    ask('/p/files?key=' . $canary{client}, '{}');
    pop @answers;
}

$p->set(status => undef, script => undef);

my %seen = (p => [ $p->log ], q => [ $q->log ]);
my $wire = sub {
    my ($log) = @_;
    return join "\n", map {
        join("\n", $_->{path}, $_->{query}, $_->{body},
             map { "@$_" } @{ $_->{raw_headers} })
    } @$log;
};
my $to_p = $wire->($seen{p});
my $to_q = $wire->($seen{q});

like($to_p, qr/$canary{p}/, 'p got its key');
unlike($to_p, qr/$canary{$_}/, "p did not get that of $_")
    for qw(q file env client);
like($to_q, qr/$canary{$_}/, "q got the key of $_") for qw(q file env client);
unlike($to_q, qr/$canary{p}/, 'q did not get that of p');

# the client's goes to the provider that is told so, in one place

my @with = grep { $wire->([ $_ ]) =~ /$canary{client}/ } @{ $seen{q} };
ok(@with && !grep({ my $h = $_->{headers};
                    $h->{cookie} || $h->{'x-api-key'} || $h->{'api-key'}
                    || $h->{authorization} ne "Bearer $canary{client}" }
                  @with), 'key of the client, and nothing else of it');

for (@answers) {
    my $all = join "\n", $_->{body}, map { "@$_" } @{ $_->{raw_headers} };
    next if $all !~ /CANARY/;
    fail('no key in an answer');
    diag($all);
    last;
}

my $logs = $gw->error_log . $gw->read_file('access.log')
           . $gw->read_file('stderr.log');
# what the client has put into its own URL
$logs =~ s/POST \S+|"uri":"[^"]*"//g;
my @told = $logs =~ /^(.*CANARY.*)$/mg;
is(scalar @told, 0, 'no key in a log') or diag($told[0]);

ok(scalar(grep { $_->{status} == 200 } @answers) > 20
   && scalar(grep { $_->{status} > 400 } @answers) > 50, 'all was tried');

# hazard 24: names with whatever a string may have

my @evil = ("a\r\nX-Evil: 1", "a\nb", "a\0b", "a\tb", "a\x7fb", 'a"b', 'a\\b',
            "a'b", 'a b', '${ai_model}', "\x{2028}\x{2029}", "\x{fc}",
            "\x{1f600}", '</script>', "%0d%0aX-Evil:1", 'a' x 256,
            "data: x", "\x{0}", "\r", "\\u000d\\u000aX-Evil: 1");
my $evil_id = 0;

for my $name (@evil) {
    my $shown = $json->ascii->encode(substr $name, 0, 40);

    for my $path ('/v1/chat/completions', '/h/chat/completions',
                  '/s/chat/completions', '/v1/messages')
    {
        for my $stream (0, 1) {
            $p->reset;
            $evil_id++;

            my $r = $gw->client->post("$path?x=$evil_id", JSON::PP->new->ascii
                    ->encode(chat($name, stream => $stream,
                                  max_tokens => 9)));
            my $control = $name =~ /[\x00-\x1f\x7f]/;
            my @all = map { "@$_" } @{ $r->{raw_headers} };
            my @bad;

            push @bad, 'status' if $control ? $r->{status} != 400
                                            : $r->{status} !~ /^(?:200|404)$/;
            push @bad, 'header' if grep { /^x-evil/i } @all;
            push @bad, 'not whole' if !$r->{done};

            my @texts = ($r->{headers}{'content-type'} // '') =~ /event/
                ? grep { $_ ne '[DONE]' }
                  map { $_->{data} // () } @{ $r->{events} }
                : ($r->{body});
            push @bad, "JSON: $_"
                for grep { !eval { $json->utf8->decode($_); 1 } } @texts;

            for my $req ($p->log) {
                push @bad, 'sent header'
                    if grep { /^x-evil/i } map { $_->[0] }
                       @{ $req->{raw_headers} };
                my $sent = eval { decode_json($req->{body})->{model} };
                push @bad, 'sent model' if !defined $sent || $sent ne $name;
            }

            ok(!@bad, "$path ($stream) with $shown") or diag("@bad\n"
                . "$r->{status} " . substr $r->{body}, 0, 400);
        }
    }
}

# the name in a path is decoded too

for my $path ('/v1/models/a%0d%0aX-Evil:%201', '/v1/models/a%09b',
              '/v1/models/a%22b', '/v1/models/a%5cb')
{
    my $r = $gw->client->get($path);
    ok($r->{status} == 404 && $r->{done}
       && eval { $json->utf8->decode($r->{body}); 1 }
       && !grep({ $_->[0] =~ /^x-evil/i } @{ $r->{raw_headers} }), $path)
        or diag("$r->{status} $r->{body}");
}

my @lines = grep { /\S/ } $gw->access_log;
is(scalar(grep { !eval { JSON::PP->new->utf8->decode($_); 1 } } @lines), 0,
   'each line of the access log is JSON');
is(scalar(grep { /^X-Evil/i } split /\n/, $gw->error_log), 0,
   'nobody writes lines into the error log');

# request ids and other values of the client's header

for my $id ('abc-123.x:y_z', 'a' x 128) {
    my $r = $gw->client->post('/v1/chat/completions', chat('echo'),
                              headers => [ 'X-Request-Id' => $id ]);
    is($r->{headers}{'x-request-id'}, $id, 'request id is kept');
}

for my $id ('a b', 'a"b', 'a' x 129, '{}', "\xfc", '<a>', 'a,b') {
    my $r = $gw->client->post('/v1/chat/completions', chat('echo'),
                              headers => [ 'X-Request-Id' => $id ]);
    like($r->{headers}{'x-request-id'}, qr/^req_[0-9a-f]{32}$/,
         'request id is replaced');
}

$p->reset;
$gw->client->post('/h/chat/completions?x=%0d%0aX-Evil:%201', chat('y'));
ok(!grep({ $_->[0] =~ /^x-evil/i } map { @{ $_->{raw_headers} } } $p->log),
   'header with a variable of the client');

# what a provider says is echoed safely too

for my $text ("a\r\nX-Evil: 1", "a\0b\x1b[31m", "\xff\xfe", '"quoted"', "x\n\n"
              . "data: {}\n\n")
{
    $p->set(script => json_script(400, JSON::PP->new->latin1->encode(
            { error => { message => $text, type => $text, code => $text } }),
            'X-Request-Id' => 'from-provider', 'Set-Cookie' => 'a=b',
            'X-Accel-Redirect' => '/s/', 'X-Evil' => 1));

    for my $path ('/v1/chat/completions', '/v1/messages') {
        my $r = $gw->client->post($path, chat('m', max_tokens => 1));
        ok($r->{status} == 400 && $r->{done}
           && eval { $json->utf8->decode($r->{body}); 1 },
           'an error with odd characters') or diag($r->{body});
        ok(!grep({ /^(?:x-evil|set-cookie|x-accel)/i }
                 map { $_->[0] } @{ $r->{raw_headers} }),
           '... its header stays there');
    }
}

# hazard 14: two providers at one address, with names and keys of their own

SKIP: {
    eval { require IO::Socket::SSL; 1 } or skip 'no IO::Socket::SSL', 4;

    my $dir = $gw->dir;
    my $cert = AI::Cert->new(dir => $dir);
    my ($crt, $key) = $cert->leaf([ 'a.example', 'b.example' ]);
    my $tls = AI::Provider->start(ssl => { cert => $crt, key => $key },
        handler => sub { openai_script(text => "$_[0]{sni}") });
    my $port = $tls->port;

    my $g = gateway(join("\n", map {
        "ai_provider $_ { dialect openai; endpoint https://127.0.0.1:$port; "
        . "key sk-$_; tls_ca $cert->{ca}; tls_name $_.example; }"
    } 'a', 'b'));

    my $mixed = 0;

    for my $i (1 .. 60) {
        my $name = $i % 2 ? 'a' : 'b';
        my $r = $g->client->post('/v1/chat/completions', chat("$name/x"));
        $mixed++ if $r->json->{choices}[0]{message}{content}
                    ne "$name.example";
    }

    is($mixed, 0, 'each with its own TLS name');

    my (%of, $wrong);
    for ($tls->log) {
        my ($who) = $_->{headers}{authorization} =~ /sk-(.)/;
        $of{ $_->{conn} }{$who} = 1;
        $wrong++ if $_->{sni} ne "$who.example";
    }

    is(scalar(grep { keys %$_ > 1 } values %of), 0,
       '... on connections of its own');
    is(scalar(keys %of), 2, '... which are used again');
    is($wrong, undef, '... with its own key');
    $g->finish;
}

$gw->finish;

done_testing();
