/* Quantity tiers of a price, as a singly linked list: the more pieces, the lower the price.
 *
 * The caller owns the list that tiers_build returns and gives it back with tiers_close. */

#include <stdio.h>
#include <stdlib.h>

struct tier {
    long from_quantity;
    double unit_price;
    char label[72];
    struct tier *next;
};

static void free_node(struct tier *node)
{
    free(node);
}

/* Frees every node of the list; NULL is an empty list. */
void tiers_close(struct tier *first)
{
    while (first != NULL) {
        struct tier *next = first->next;
        free_node(first);
        first = next;
    }
}

/* Returns `count` tiers, cheapest last, or NULL when memory is short or count is not positive. */
struct tier *tiers_build(double base_price, long count)
{
    struct tier *first = NULL;
    for (long index = count - 1; index >= 0; index--) {
        struct tier *node = malloc(sizeof *node);
        if (node == NULL) {
            tiers_close(first);
            return NULL;
        }
        node->from_quantity = index * 10 + 1;
        node->unit_price = base_price * (1.0 - 0.5 * (double)index / (double)count);
        snprintf(node->label, sizeof node->label, "from %ld pieces at %.4f each",
                 node->from_quantity, node->unit_price);
        node->next = first;
        first = node;
    }
    return first;
}

/* The price of one piece when `quantity` are bought; 0 for an empty list. */
double tiers_unit_price(const struct tier *first, long quantity)
{
    double price = 0.0;
    for (const struct tier *node = first; node != NULL; node = node->next) {
        if (node->from_quantity > quantity)
            break;
        price = node->unit_price;
    }
    return price;
}
