#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The command-line tool: prices, switches.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp qw(tempdir);
use JSON::PP;
use Test::More;

use AI::Gateway;
use AI::Live qw(json);
use AI::Tool;

my $missing = AI::Tool::missing();
plan skip_all => $missing if $missing;

my $top = tempdir('aigw-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my ($dir, $dirs);

sub fresh { mkdir($dir = "$top/" . ++$dirs) or die "$dir: $!" }

sub aigw {
    return AI::Tool::run([ @_, '--data', $dir ]);
}

sub put {
    my ($name, $text) = @_;

    open my $f, '>', "$dir/$name" or die "$name: $!";
    print $f $text;
    close $f;

    return "$dir/$name";
}

sub slurp {
    open my $f, '<', "$dir/$_[0]" or return '';
    local $/;
    return <$f>;
}

# the gateway's opinion

sub accepted {
    return 1 if AI::Gateway::missing();

    my $gw = AI::Gateway->new(conf => <<"END");
events {}
http {
    ai_data $dir;
    ai_provider p { dialect openai; endpoint http://127.0.0.1:1; key none; }
    ai_model m { target p/x; }
    ai_quota_zone all zone=spend usd=10/month;
    server { listen 127.0.0.1:%%PORT_0%%;
             location / { ai_quota spend; ai_pass model; } }
}
END
    my ($rc, $out) = $gw->conf_test;
    diag($out) if $rc;

    return $rc == 0;
}

my %lit = (
    sample_spec => { mode => 'chat', litellm_provider => 'x',
                     input_cost_per_token => 0 },
    'gpt-4o' => { litellm_provider => 'openai', mode => 'chat',
        input_cost_per_token => 2.5e-06, output_cost_per_token => 1e-05,
        cache_read_input_token_cost => 1.25e-06,
        input_cost_per_token_batches => 1.25e-06,
        output_cost_per_token_batches => 5e-06 },
    'claude-x' => { litellm_provider => 'anthropic', mode => 'chat',
        input_cost_per_token => 3e-06, output_cost_per_token => 1.5e-05,
        cache_creation_input_token_cost => 3.75e-06,
        cache_creation_input_token_cost_above_1hr => 6e-06,
        input_cost_per_token_above_200k_tokens => 6e-06,
        output_cost_per_token_above_200k_tokens => 2.25e-05 },
    'azure/gpt-4o' => { litellm_provider => 'azure', mode => 'chat',
        input_cost_per_token => 2.5e-06, output_cost_per_token => 1e-05 },
    'together_ai/qwen' => { litellm_provider => 'together_ai', mode => 'chat',
        input_cost_per_token => 6e-08, output_cost_per_token => 1.8e-07,
        output_cost_per_reasoning_token => 3e-07 },
    'embed' => { litellm_provider => 'openai', mode => 'embedding',
        input_cost_per_token => 2e-08 },
    'dall-e-3' => { litellm_provider => 'openai',
        mode => 'image_generation' },
    free => { litellm_provider => 'groq', mode => 'chat',
        input_cost_per_token => 0, output_cost_per_token => 0 },
);

fresh();
my $lit = put('lit', json(\%lit));
my $r = aigw(qw(prices import litellm), $lit, '--json');

is($r->{rc}, 0, 'import') or diag($r->{err});
is_deeply(decode_json($r->{out}), { imported => 5, kept => 0, skipped => 3 },
          '... counts');

my %price = map { ($_->{model} => $_) } map { decode_json($_) }
            split /\n/, slurp('prices.jsonl');

is_deeply([ sort keys %price ],
          [ qw(anthropic/claude-x azure/gpt-4o openai/embed openai/gpt-4o
               together/qwen) ], '... names');

my $c = $price{'anthropic/claude-x'};
is(json($c->{above}), json({ 200000 => { input => 6, output => 22.5 } }),
   '... tiers');
is("$c->{cache_write} $c->{cache_write_1h}", '3.75 6', '... writes');
is(json($price{'openai/gpt-4o'}{batch}), json({ input => 1.25, output => 5 }),
   '... batch');
like($c->{version}, qr/^litellm 20\d\d-\d\d-\d\d$/, '... version');

like(slurp('prices.jsonl'), qr/"input":0.06,"output":0.18,"reasoning":0.3,/,
     '... figures are exact');

is(aigw(qw(prices check))->{rc}, 0, '... is good');
ok(accepted(), '... for nginx too');

# again: own records stay, others are made anew

put('prices.jsonl', json({ model => 'openai/gpt-4o', input => 1, output => 1 })
                    . json({ model => 'x', input => 1, output => 1,
                             comment => 'litellm' }));
$r = aigw(qw(prices import litellm), $lit, '--provider-map', 'azure=east',
          '--provider-map', 'anthropic=');

is($r->{rc}, 0, 'import again');
like($r->{err}, qr/3 prices imported, 1 of other sources kept/, '... counts');
like(slurp('prices.jsonl'), qr/^\{"input":1,/, '... own record');
like(slurp('prices.jsonl'), qr/"east\/gpt-4o"/, '... map');
unlike(slurp('prices.jsonl'), qr/claude|"x"/, '... left out');

like(aigw(qw(prices list))->{out}, qr/^ +2\.5 +10 +- +east\/gpt-4o/m, 'list');
is(scalar @{ decode_json(aigw(qw(prices list --json))->{out}) }, 4,
   'list --json');
like(aigw(qw(prices show east/gpt-4o))->{out}, qr/"output":10/, 'show');
is(aigw(qw(prices show none))->{rc}, 1, 'show: none');

put('prices.jsonl', json({ model => 'a', input => 1, output => 1, x => 1 })
                    . json({ model => 'b', input => 1 })
                    . json({ model => 'c', input => 1, output => 1 })
                    . json({ model => 'c', input => 1, output => 1 }));
$r = aigw(qw(prices check));
is($r->{rc}, 1, 'check of a bad file');
like($r->{err}, qr/:1: record "a": unknown member "x"/, '... unknown');
like($r->{err}, qr/:2: record "b": no "output"/, '... missing');
like($r->{err}, qr/:4: record "c": the "model" is there twice/, '... twice');

for my $case ([ [ qw(import openai x) ], qr/unknown form "openai"/ ],
              [ [ 'import', 'litellm', $lit, '--provider-map', 'x' ],
                qr/invalid --provider-map "x"/ ],
              [ [ qw(lst) ], qr/unknown\ command\ "prices\ lst",\ did\ you
                                \ mean
                                \ "list"/x ])
{
    $r = aigw('prices', @{ $case->[0] });
    is($r->{rc}, 2, "prices @{ $case->[0] }[0]: code");
    like($r->{err}, $case->[1], '... message');
}

# switches

fresh();
put('switches.json', "[]\n");

sub switches { return json(decode_json(aigw(qw(switch list --json))->{out})) }

is(aigw(qw(switch on tenant:acme deny --text no --status 402))->{rc}, 0,
   'switch on');
is(switches(), json([ { scope => 'tenant', name => 'acme', action => 'deny',
                        text => 'no', status => 402 } ]), '... record');

is(aigw(qw(switch on all cut))->{rc}, 0, '... another');
is(aigw(qw(switch on tenant:acme drain))->{rc}, 0, '... replaces');
is(switches(), json([ { scope => 'tenant', name => 'acme',
                        action => 'drain' },
                      { scope => 'all', action => 'cut' } ]), '... both');

is(aigw(qw(switch on model:m reroute --model n --until 2h --comment x))->{rc},
   0, 'reroute');
is(aigw(qw(switch on zone:spend --key k --raise usd=20/month))->{rc}, 0,
   'raise');
ok(accepted(), 'nginx takes them');

is(aigw(qw(switch off tenant:acme))->{rc}, 0, 'switch off');
is(aigw(qw(switch off tenant:acme))->{rc}, 1, '... twice');
is(aigw('switch', 'off', $_)->{rc}, 0, "... $_") for 'all', 'model:m';
is(aigw(qw(switch off zone:spend --key k))->{rc}, 0, '... of a zone');
is(switches(), json([]), '... none is left');

for my $case ([ [ qw(on bogus deny) ], qr/unknown scope "bogus"/ ],
              [ [ qw(on tenant deny) ], qr/whose\? It is tenant:NAME/ ],
              [ [ qw(on all:x deny) ], qr/"all" has no name/ ],
              [ [ qw(on all) ], qr/what\? It is deny/ ],
              [ [ qw(on all denny) ], qr/did you mean "deny"/ ],
              [ [ qw(on feature:tool deny) ], qr/did you mean "tools"/ ],
              [ [ qw(on model:m reroute) ], qr/"reroute" needs --model/ ],
              [ [ qw(on provider:p reroute --model m) ],
                qr/is not for a provider/ ],
              [ [ qw(on all deny --status 200) ], qr/invalid --status/ ],
              [ [ qw(on all deny --raise usd=1) ], qr/--raise is of a zone/ ],
              [ [ qw(on zone:z deny --key k) ], qr/no action/ ],
              [ [ qw(on zone:z --key k) ], qr/needs --raise/ ],
              [ [ qw(on zone:z --raise usd=1) ], qr/a zone needs --key/ ],
              [ [ qw(on all deny --key k) ], qr/--key is of a zone/ ])
{
    $r = aigw('switch', @{ $case->[0] });
    is($r->{rc}, 2, "switch @{ $case->[0] }: code");
    like($r->{err}, $case->[1], '... message');
}

like(aigw($_, '--help')->{out}, qr/^Usage: aigw $_ COMMAND/, "$_ --help")
    for qw(prices switch);

done_testing();
